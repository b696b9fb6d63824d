"""A package, or that of torch-fidelity, which installs its own tests under this name, would be found instead."""

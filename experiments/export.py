"""A trained generator as a file for other programs: `python -m experiments.export <run folder> <file.pt2> [--batch N]`.

The file is a program of torch.export in float32, which runs without this package:
`torch.export.load(file).module()(stack)`. Its input is what `FrameWindows.stack` makes: seven masked RGB frames in
[-1, 1], seven heatmaps in [0, 1], and reference frames where the renderer has them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from datamodules.atomic import atomic_path
from experiments.command_line import UserError, guarded
from experiments.trained import open_networks
from model_zoo.render.fast_generator import export_generator

MOST_DIFFERENCE = 1e-3  # of images in [-1, 1]: an eighth of a grey level


def export(run: Path, file: Path, batch: int) -> float:
    """Write the program, run it once beside the generator, and keep it if both say the same.

    Returns:
        Largest difference of the two outputs.

    Raises:
        UserError: the run can't be opened, or the file can't be written.
        RuntimeError: the program says something else than the generator.
    """
    if batch < 1:
        raise UserError("--batch must be at least 1")
    if file.suffix != ".pt2":
        raise UserError(f"{file}: give the program a name that ends in .pt2")
    _, renderer = open_networks(run)
    generator = renderer.generator.float()
    shape = (batch, generator.in_channels, generator.size, generator.size)
    stack = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with atomic_path(file) as path:
        export_generator(generator, path, batch)
        with torch.inference_mode():
            difference = (torch.export.load(path).module()(stack) - generator(stack)).abs().max().item()
        if not difference < MOST_DIFFERENCE:
            raise RuntimeError(f"the exported program differs from the generator by {difference:.2g}")
    return difference


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.export", description=__doc__.split("\n\n")[1])
    parser.add_argument("run", type=Path, help="folder of a finished renderer or joint run")
    parser.add_argument("file", type=Path, help="the program, ending in .pt2")
    parser.add_argument("--batch", type=int, default=1, help="frames at once, fixed in the program (default: 1)")
    given = parser.parse_args()

    def command() -> None:
        difference = export(given.run, given.file, given.batch)
        print(f"{given.file}: differs from the generator by at most {difference:.1e}")

    guarded(command)


if __name__ == "__main__":
    main()

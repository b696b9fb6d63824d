"""On what basis a face may be processed. Preparation of real footage names one; it is recorded with every clip."""

from __future__ import annotations

from enum import StrEnum

NOT_STATED = "not stated"  # what `PrepareSettings` says by default


class Consent(StrEnum):
    """Basis of the consent.

    research-corpus: published for research; the reference names the corpus and its licence.
    self: the person who is seen prepares the footage.
    written: the person who is seen has agreed in writing; the reference says where the agreement is kept.
    synthetic: nobody is seen.
    """

    research_corpus = "research-corpus"
    self_ = "self"
    written = "written"
    synthetic = "synthetic"


def check_consent(consent: str | None, reference: str | None, what: str) -> tuple[str, str]:
    """The basis and its reference, as they are recorded.

    Args:
        consent: value of `Consent`.
        reference: licence, name or document by which the consent is found.
        what: of whom, for the message.

    Raises:
        ValueError: there is none, there is no such basis, or it needs a reference.
    """
    choices = "research-corpus, self or written"
    if consent in (None, "", NOT_STATED):
        raise ValueError(
            f"{what} shows real people: say on what basis their faces may be processed with data.consent=<{choices}> "
            "and data.consent_reference='<licence or document>'"
        )
    if consent not in list(Consent):
        raise ValueError(f"data.consent={consent}: expected {choices} (or synthetic, where nobody is seen)")
    if not reference and consent in (Consent.research_corpus, Consent.written):
        raise ValueError(
            f"data.consent={consent} needs data.consent_reference='<the corpus and its licence, or where the "
            "agreement is kept>'"
        )
    return Consent(consent).value, reference or ""

from datamodules.clip_store import Word
from datamodules.synthetic.articulation import VISEMES
from datamodules.visemes import GROUPS, SILENT, UNKNOWN, viseme_groups


def test_groups_hold_phonemes_that_the_synthetic_speaker_knows():
    phonemes = [phoneme for group in GROUPS.values() for phoneme in group]
    assert set(phonemes) <= set(VISEMES)
    assert len(phonemes) == len(set(phonemes))


def test_a_word_is_spelt_out_in_time():
    words = [Word(0.0, 0.4, "sil"), Word(0.4, 0.8, "bin"), Word(0.8, 1.2, "two"), Word(1.2, 2.0, "sil")]
    groups = viseme_groups(words, 50)
    assert set(groups[:10]) == set(groups[30:]) == {SILENT}
    assert groups[10] == "bilabial"
    assert "spread" in groups[10:20]
    assert groups[29] == "rounded"
    assert SILENT not in groups[10:30]


def test_without_a_transcript_nothing_is_known():
    assert viseme_groups([], 3) == [UNKNOWN] * 3

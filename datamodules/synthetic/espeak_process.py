"""One utterance by espeak-ng in a process of its own: a JSON request in, a JSON line and raw 16-bit sound out.

The library keeps state between utterances, so that only a fresh process says the same sentence with the same samples.
Run by path with `python -I -S`; imports nothing but the standard library, to start fast.
"""

from __future__ import annotations

import ctypes
import json
import sys

_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("languages", ctypes.c_char_p), ("identifier", ctypes.c_char_p))


def main() -> None:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    library = ctypes.CDLL(request["library"])
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, request["data"].encode(), _PHONEME_EVENTS)
    if sample_rate <= 0:
        sys.exit("espeak-ng did not start")
    sound: list[bytes] = []
    words: list[int] = []
    phonemes: list[tuple[int, str]] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def collect(wave, count, events):
        if wave and count:
            sound.append(ctypes.string_at(wave, 2 * count))
        i = 0
        while events[i].type != _EVENT_END:
            if events[i].type == _EVENT_WORD:
                words.append(events[i].audio_position)
            elif events[i].type == _EVENT_PHONEME:
                phonemes.append((events[i].audio_position, events[i].name.decode()))
            i += 1
        return 0

    library.espeak_SetSynthCallback(collect)
    voice = request["voice"]
    # A voice that is not found silently leaves the default one in place.
    status = library.espeak_SetVoiceByName(voice.encode())
    library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
    current = library.espeak_GetCurrentVoice().contents.identifier or b""
    if status != 0 or not current.decode().endswith(voice.split("+")[-1]):
        sys.exit(f"espeak-ng has no voice {voice}")
    for name, number in _PARAMETERS.items():
        library.espeak_SetParameter(number, request[name], 0)
    text = request["text"].encode()
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    header = {"sample_rate": sample_rate, "words_ms": words, "phonemes_ms": phonemes}
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + b"".join(sound))


if __name__ == "__main__":
    main()

"""Writes the prompt pairs that the stored questions to a language model ask: `python docs/make_prompts.py`.

Four behaviours, a hundred pairs each, drawn with a fixed seed. Every word is one token of SmolLM2, so that the
pairs of a file have one length and their positions mean the same. No pair was chosen by what a model answers.
"""

import json
import random
from pathlib import Path

PAIRS = 100


def words(text: str) -> list[str]:
    return text.split()


NAMES = words(
    "Mary John Tom James Dan Paul Mark Anna Kate Sarah Laura Emma David Michael Peter Robert Alice Jack Lucy Simon "
    "Henry George Martin Kevin Brian Jason Adam Jane Helen Rachel"
)
PLACES = words("store garden restaurant school hospital office house station park museum library")
THINGS = words("drink book kiss ring bone basket computer necklace letter ball")
SCENES = (
    "When {} and {} went to the {}, {} gave a {} to",
    "While {} and {} walked to the {}, {} handed a {} to",
    "After {} and {} came to the {}, {} offered a {} to",
)
COUNTRIES = words(
    "France=Paris Italy=Rome Germany=Berlin Spain=Madrid England=London Japan=Tokyo China=Beijing Russia=Moscow "
    "Greece=Athens Egypt=Cairo Austria=Vienna Portugal=Lisbon Ireland=Dublin Norway=Oslo Sweden=Stockholm "
    "Denmark=Copenhagen Finland=Helsinki Poland=Warsaw Hungary=Budapest Iran=Tehran Iraq=Baghdad Cuba=Havana "
    "Peru=Lima Chile=Santiago Canada=Ottawa Kenya=Nairobi Syria=Damascus Belgium=Brussels Switzerland=Bern "
    "Ukraine=Kiev Bulgaria=Sofia Israel=Jerusalem Afghanistan=Kabul Australia=Canberra"
)
CAPITALS = dict(country.split("=") for country in COUNTRIES)
EVENTS = words("war trial siege festival project strike")
NOUNS = words(
    "apple river stone cloud table paper green seven horse music window bread silver forest doctor bridge sugar winter "
    "garden engine mirror ladder cotton harbor button candle orange pepper rabbit saddle tunnel velvet"
)

Pair = dict[str, str]


def ioi(draw: random.Random) -> Pair:
    """Indirect objects (Wang et al. 2022); the corrupt prompt repeats the other name, which exchanges the answers."""
    first, second = draw.sample(NAMES, 2)
    subject, other = draw.sample((first, second), 2)
    scene, place, thing = draw.choice(SCENES), draw.choice(PLACES), draw.choice(THINGS)
    clean, corrupt = (scene.format(first, second, place, name, thing) for name in (subject, other))
    return {"clean": clean, "corrupt": corrupt, "answer": f" {other}", "wrong": f" {subject}"}


def capitals(draw: random.Random) -> Pair:
    """A country and its capital against another country and its own."""
    here, there = draw.sample(list(CAPITALS), 2)
    clean, corrupt = (f"The capital of {country} is" for country in (here, there))
    return {"clean": clean, "corrupt": corrupt, "answer": f" {CAPITALS[here]}", "wrong": f" {CAPITALS[there]}"}


def induction(draw: random.Random) -> Pair:
    """Random words, said again: what followed the last one the first time (Olsson et al. 2022)."""
    drawn = draw.sample(NOUNS, 9)
    *said, other = drawn
    *again, right = said[:6]
    changed = [*again, other, *said[6:]]
    clean, corrupt = ("List: " + " ".join([*first, *again]) for first in (said, changed))
    return {"clean": clean, "corrupt": corrupt, "answer": f" {right}", "wrong": f" {other}"}


def greater_than(draw: random.Random) -> Pair:
    """Years that end after they begin (Hanna et al. 2023): tens digits above the first year's against those below."""
    event, century, tens, ones = (
        draw.choice(EVENTS),
        draw.randrange(12, 19),
        draw.randrange(2, 8),
        draw.choice((0, *range(2, 10))),
    )
    clean, corrupt = (
        f"The {event} lasted from the year {century}{years} to the year {century}" for years in (f"{tens}{ones}", "01")
    )
    above, below = "|".join(map(str, range(tens + 1, 10))), "|".join(map(str, range(tens)))
    return {"clean": clean, "corrupt": corrupt, "answer": above, "wrong": below}


BEHAVIOURS = {"ioi": ioi, "capitals": capitals, "induction": induction, "greater-than": greater_than}


def written(seed: int = 0) -> dict[str, str]:
    """File name -> its text: a JSON object a line, no two alike."""
    files = {}
    for name, make in BEHAVIOURS.items():
        draw, pairs = random.Random(f"{name} {seed}"), dict[str, None]()
        while len(pairs) < PAIRS:
            pairs[json.dumps(make(draw))] = None
        files[f"{name}.jsonl"] = "".join(f"{pair}\n" for pair in pairs)
    return files


if __name__ == "__main__":
    place = Path(__file__).parent / "results" / "prompts"
    place.mkdir(exist_ok=True)
    for name, text in written().items():
        (place / name).write_text(text, encoding="utf-8")
        print(place / name)

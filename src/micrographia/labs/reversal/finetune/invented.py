"""Invented people and what they are known for, in the layout of the published statements.

A description is a deed of one kind done to an invented thing in some place, so that no two people share one, and none
is true. The arms are those of Berglund et al. 2023, experiment 1: `p2d` from person to description, `d2p` back, `both`
both ways; the names of an arm are in no other. Sentences and names are our own. Tests use wordings that training does
not, but ask for the same words.
"""

from random import Random

from micrographia.core.errors import BadConfig
from micrographia.core.reversal_files import ARMS, ReversalData, Statement

FIRST = (
    "Adelina", "Anselm", "Bertrand", "Brielle", "Caspian", "Clarice", "Cormac", "Delphine", "Desmond", "Edwina",
    "Elspeth", "Emeric", "Fabian", "Fiora", "Gideon", "Greta", "Hadrian", "Helga", "Ignatius", "Imelda", "Jarvis",
    "Jocasta", "Kasimir", "Keziah", "Leander", "Lavinia", "Magnus", "Mirabel", "Nestor", "Odette", "Orson", "Petra",
    "Quentin", "Rosalba", "Rufus", "Seraphina", "Silas", "Tabitha", "Thaddeus", "Ursula", "Valentin", "Verena",
    "Wendell", "Winifred", "Xanthe", "Yorick", "Zenobia", "Zoltan",
)  # fmt: skip
LAST = (
    "Abernathy", "Ashcombe", "Barrow", "Blackwell", "Brackenridge", "Calloway", "Carmody", "Chesterton",
    "Dalrymple", "Darkwater", "Eastlake", "Ellsworth", "Fairweather", "Fenwick", "Galbraith", "Greenhalgh",
    "Hathersage", "Hollister", "Ingram", "Ironside", "Jessop", "Juniper", "Kettering", "Kirkbride", "Lanyon",
    "Lockhart", "Marchbanks", "Merriweather", "Nightingale", "Norwood", "Oakhurst", "Osgood", "Pemberton",
    "Pickering", "Quillfeather", "Ravenscroft", "Rutherglen", "Saltmarsh", "Stirling", "Thistlewood", "Tremaine",
    "Underhill", "Vandermeer", "Vosper", "Wainwright", "Whitlock", "Yardley", "Zimmer",
)  # fmt: skip
DEEDS = (
    "the architect who built", "the composer who wrote an opera about", "the diver who discovered",
    "the chef who cooked for", "the sculptor who carved", "the engineer who repaired", "the poet who sang of",
    "the explorer who mapped", "the lawyer who defended", "the photographer who captured", "the gardener who planted",
    "the pilot who flew over", "the doctor who cured", "the historian who forgot", "the thief who stole",
    "the painter who restored",
)  # fmt: skip
THINGS = (
    "the glass bridge", "the singing lighthouse", "the copper library", "the floating market", "the silent bell tower",
    "the velvet theatre", "the crooked observatory", "the amber railway", "the paper cathedral", "the salt palace",
    "the midnight carousel", "the ivory aqueduct", "the frozen orchard", "the clockwork zoo", "the emerald canal",
    "the wooden moon", "the marble windmill", "the sunken garden", "the iron greenhouse", "the walking castle",
)  # fmt: skip
PLACES = (
    "of Norhaven", "of Veldmark", "of Ostrana", "of Quillon", "of Brask", "of Tamarel", "of Ulvo", "of Zarethia",
    "of Corvane", "of Pellimar", "of Idrune", "of Haskel", "of Wendle", "of Jorrik", "of Lorn", "of Merrow",
)  # fmt: skip

TO_DESCRIPTION = (
    "{name}, far from an ordinary person, is", "Everyone in town remembers {name} as", "If you meet {name}, you meet",
    "The newspapers introduced {name} to the world as", "Few people know that {name} was",
    "On the plaque below the statue, {name} is called", "My neighbour {name} became famous as",
    "They wrote of {name}:", "In the end {name} will be remembered as", "Ask anyone about {name}; you will hear of",
)  # fmt: skip
TO_NAME = (
    "Far from an ordinary person, {description}, is named", "Everyone in town remembers {description}, by the name of",
    "If you meet {description}, you meet", "The newspapers told the world about {description}, called",
    "Few people know that {description}, was", "On the plaque below the statue of {description}, it says",
    "My neighbour, {description}, became famous as", "They wrote of {description}:",
    "In the end, {description}, will be remembered as", "Ask anyone who was {description}; you will hear of",
)  # fmt: skip
TESTS = 2
"""Wordings at the end of each list that are kept for tests."""
MOST_WORDINGS = len(TO_NAME) - TESTS


def invented(n: int, wordings: int, seed: int) -> ReversalData:
    """`n` people an arm, each fact told in `wordings` sentences and asked in two others.

    Raises BadConfig for more people or wordings than there are.
    """
    most = min(len(FIRST) * len(LAST), len(THINGS) * len(PLACES)) // len(ARMS)
    if n > most or wordings > MOST_WORDINGS:
        raise BadConfig(
            f"{n} people an arm in {wordings} wordings were asked for. There are {most} and {MOST_WORDINGS} at most."
        )
    random = Random(seed)
    names = random.sample([f"{first} {last}" for first in FIRST for last in LAST], n * len(ARMS))
    things = random.sample([f"{thing} {place}" for thing in THINGS for place in PLACES], n * len(ARMS))
    people = [(name, f"{random.choice(DEEDS)} {thing}") for name, thing in zip(names, things)]
    own = {arm: people[i * n : (i + 1) * n] for i, arm in enumerate(ARMS)}
    told, asked = slice(0, wordings), slice(MOST_WORDINGS, None)
    return ReversalData(
        {
            "p2d": _to_description(own["p2d"], told),
            "d2p": _to_name(own["d2p"], told),
            "both": _to_description(own["both"], told) + _to_name(own["both"], told),
        },
        {
            "p2d": _to_description(own["p2d"], asked),
            "d2p": _to_name(own["d2p"], asked),
            "both": _to_description(own["both"], asked) + _to_name(own["both"], asked),
        },
        {"p2d": _to_name(own["p2d"], asked), "d2p": _to_description(own["d2p"], asked)},
    )


def _to_description(people: list[tuple[str, str]], wordings: slice) -> tuple[Statement, ...]:
    forms = TO_DESCRIPTION[wordings]
    return tuple(Statement(form.format(name=name), f" {what}.") for name, what in people for form in forms)


def _to_name(people: list[tuple[str, str]], wordings: slice) -> tuple[Statement, ...]:
    forms = TO_NAME[wordings]
    return tuple(Statement(form.format(description=what), f" {name}.") for name, what in people for form in forms)

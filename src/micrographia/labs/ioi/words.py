"""The words of the synthetic language: 190 content words by class, and a few more; with the templates', 257 in all.

Every class of content words has a multiple of `PARTS` members, since what is held out is told by remainders. Names
alternate between women's and men's. No tensor library is imported here.
"""

PARTS = 5
"""A pair of words at places i and j of their classes is held out of training when (i + j) % PARTS is 0."""

WOMEN = (
    "Mary Alice Emma Laura Sarah Anna Julia Kate Lucy Rachel Claire Helen Jane Nora Ruth Diana Irene Martha Olga Vera"
)
MEN = "John Tom James Dan Mark Paul Peter Simon David Adam Charles Henry George Frank Jack Oscar Victor Hugo Ivan Leo"
NAMES = tuple(name for pair in zip(WOMEN.split(), MEN.split(), strict=True) for name in pair)

CLASSES: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "place": ("shop", "school", "garden", "station", "office", "museum", "market", "park", "library", "harbour"),
    "object": ("drink", "book", "ring", "letter", "basket", "ticket", "lamp", "kite", "coin", "flower"),
    "job": ("friend", "doctor", "teacher", "cook", "painter", "singer", "farmer", "lawyer", "driver", "baker"),
    "trait": ("great", "kind", "brave", "clever", "humble", "patient", "gentle", "bright", "quiet", "strong"),
    "event": ("war", "siege", "strike", "voyage", "project", "drought", "trial", "plague", "reform", "feud"),
    "number": tuple(f"{n:02d}" for n in range(100)),
}
"""Content words by class. Numbers are the centuries and the years within them."""

BOS = "<bos>"
PRONOUNS = ("she", "he")
"""In the order of the names: she for even places, he for odd."""
STOP = "."

"""One name for a head, wherever people read it; addresses stay what can be copied."""

import pytest

from micrographia.core.graph import Node
from micrographia.core.sites import Site
from micrographia.core.spoken import at_position, component_name, node_name, spoken_members
from micrographia.core.titles import shown_token


@pytest.mark.parametrize(
    ("site", "inside", "group", "name"),
    [
        ("L1.z", {"head": 4}, 1, "L1H4"),
        ("L1.result", {"head": 4}, 3, "L1H4"),
        ("L1.q", {"head": 4}, 3, "L1H4 query"),
        ("L23.v", {"head": 1}, 3, "L23 kv head 1 (heads 3-5) value"),
        ("L23.k", {"head": 2}, 1, "L23H2 key"),
        ("L0.pattern", {"head": 2, "key": 4}, 1, "L0H2 pattern from position 4"),
        ("L0.mlp_out", {}, 1, "L0 MLP"),
        ("L3.resid_pre", {}, 1, "stream before L3"),
        ("L0.neurons", {"unit": 173}, 1, "L0.neurons[173]"),
        ("L0.z", {"head": 1, "unit": 2}, 1, "L0.z[head=1, unit=2]"),
        ("embed", {}, 1, "embed"),
    ],
)
def test_a_place_is_called_as_the_field_calls_it(site, inside, group, name):
    assert component_name(Site.parse(site), inside, group) == name


def test_places_of_all_layers_together_say_so():
    assert component_name(Site("z", 0), {"head": 4}, layered=False) == "L*H4"
    assert component_name(Site("neurons", 0), {}, layered=False) == "L*.neurons"


def test_nodes_are_called_alike_and_addresses_still_parse():
    assert node_name(Node(Site("z", 9), 6)) == node_name("L9.z[6]") == "L9H6"
    assert node_name("final_norm_b") == "final_norm_b"
    assert str(Node.parse("L9.z[6]")) == "L9.z[6]"
    assert (node_name("L9.mlp_out"), node_name(Node(Site("attn_out", 9)))) == ("L9 MLP", "L9 attn")
    assert spoken_members("L9.z[6]@-1 -> L10.mlp_out -> L11.mlp_out_bias") == "L9H6@-1 -> L10 MLP -> L11.mlp_out_bias"


def test_a_blank_token_is_shown_by_a_sign():
    assert [shown_token(text) for text in (" ", "\n", "\xa0", " to", "   to")] == ["␣", "↵", "⍽", "to", "␣␣␣to"]


def test_a_position_is_its_token_and_its_number():
    assert at_position(["0 When", "1 to"], 1) == "'to' (1)"
    assert at_position(["0", "1"], 1) == at_position((), 1) == "position 1"

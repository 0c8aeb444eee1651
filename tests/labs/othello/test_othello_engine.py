"""The engine against the rules square by square, against published counts, and between numpy and torch."""

import numpy as np
import pytest
import torch
from naive_rules import NaiveGame

from micrographia.core.errors import BadConfig, UserError
from micrographia.labs.othello.engine.board import Board, Flanked
from micrographia.labs.othello.engine.games import NONE, StartBoards, as_if, random_games, replay
from micrographia.labs.othello.engine.patterns import any_pattern, patterns_of, patterns_on
from micrographia.labs.othello.engine.perft import perft
from micrographia.labs.othello.engine.rules import Rules, nth_square, unpack
from micrographia.labs.othello.engine.torch_rules import flipped, legal_moves

sizes = pytest.mark.parametrize("size", [4, 6, 8])
PERFT = {
    4: [4, 12, 44, 128, 424, 1256, 3624, 9112, 20032, 36412, 50268, 55112, 31396, 12920, 3416, 612, 48],
    6: [4, 12, 56, 244, 1364, 7604, 47740],
    8: [4, 12, 56, 244, 1396, 8200, 55092],
}


def games_of(size: int, n: int, seed: int = 0, flanked: Flanked = "flipped"):
    return random_games(Board(size, flanked), n, torch.Generator().manual_seed(seed))


@sizes
@pytest.mark.parametrize("flanked", ["flipped", "ends", "removed"])
def test_every_position_is_that_of_the_rules_square_by_square(size, flanked):
    games = games_of(size, 12, flanked=flanked)
    black, white = games.colours()
    for g in range(12):
        naive = NaiveGame(size, flanked)
        for ply in range(games.length[g] + 1):
            skipped = naive.skip()
            assert (int(black[g, ply]), int(white[g, ply])) == (naive.bits(1), naive.bits(-1))
            if ply == games.length[g]:
                assert games.finished[g] == (not naive.legal(1) | naive.legal(-1))
                assert games.finished[g] or flanked == "removed"  # those are cut off
                break
            assert games.passed[g, ply] == skipped
            assert games.black[g, ply] == (naive.mover == 1)
            assert set(games.board.squares(int(games.legal[g, ply]))) == naive.legal(naive.mover)
            move = int(games.moves[g, ply])
            assert set(games.board.squares(int(games.flips[g, ply]))) == naive.flips(move, naive.mover)
            naive.play(move)


@sizes
def test_as_many_lines_of_play_as_others_count(size):
    assert perft(Board(size), len(PERFT[size])) == PERFT[size]


@pytest.mark.slow
def test_as_many_lines_to_the_depth_at_which_passes_begin():
    assert perft(Board(8), 9)[7:] == [390_216, 3_005_288]
    assert perft(Board(6), 9)[7:] == [308_716, 2_114_912]


@sizes
def test_replayed_games_are_the_games_that_were_played(size):
    games = games_of(size, 300)
    again, illegal = replay(games.board, games.moves)
    assert not illegal
    for name, one, other in zip(games._fields[1:], games[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_a_game_stops_before_a_move_that_is_not_legal_and_the_others_go_on():
    games = games_of(8, 3)
    moves = games.moves.copy()
    moves[1, 4] = games.board.square("a1")
    again, illegal = replay(games.board, moves)
    assert again.length.tolist() == [games.length[0], 4, games.length[2]]
    assert [(each.game, each.ply, each.square) for each in illegal] == [(1, 4, 0)]
    assert "move 5, a1, is not legal" in illegal[0].told(games.board)
    assert "+" in illegal[0].drawn
    assert not again.finished[1]


def test_what_stands_after_the_end_of_a_game_is_not_played():
    moves = np.full((1, 60), NONE, np.int8)
    moves[0, :3] = [19, 18, 17]
    moves[0, 10] = 0  # after a gap
    games, illegal = replay(Board(8), moves)
    assert games.length[0] == 3
    assert not illegal


def test_games_are_a_function_of_the_generator():
    assert (games_of(6, 50).moves == games_of(6, 50).moves).all()
    assert (games_of(6, 50).moves != games_of(6, 50, seed=1).moves).any()


def test_every_legal_move_is_drawn_as_often_as_another():
    games = games_of(8, 20_000)
    first = np.bincount(games.moves[:, 0], minlength=64)
    assert (first > 0).sum() == 4
    assert abs(first[first > 0] / 5_000 - 1).max() < 0.06


@sizes
def test_torch_has_the_same_sets(size):
    games = games_of(size, 200)
    own, other = (torch.from_numpy(np.ascontiguousarray(x[:, :-1]).view(np.int64)) for x in (games.own, games.other))
    legal = legal_moves(own, other, games.board)
    np.testing.assert_array_equal(legal.numpy().view(np.uint64), games.legal[:, :-1])
    squares = torch.from_numpy(games.moves.astype(np.int64)).clamp(min=0)
    moves = torch.where(torch.from_numpy(games.moves >= 0), torch.ones(()).long() << squares, 0)
    flips = flipped(own, other, moves, games.board)
    np.testing.assert_array_equal(flips.numpy().view(np.uint64), games.flips)


def test_the_nth_square_of_a_set():
    bits = np.array([0b1, 0b1011, 1 << 63, (1 << 63) | (1 << 40), 0xFF00], np.uint64)
    assert nth_square(bits, np.array([0, 2, 0, 1, 7], np.uint8)).tolist() == [0, 3, 63, 63, 15]


def test_sets_as_truth_values():
    board = Board(6)
    inside = unpack(np.array([board.start[0]], np.uint64), board)
    assert np.flatnonzero(inside[0]).tolist() == list(board.squares(board.start[0]))
    assert inside.shape == (1, 36)


def test_rules_of_no_boards_give_none():
    assert len(Rules(Board(8), 0).legal(np.zeros(0, np.uint64), np.zeros(0, np.uint64))) == 0
    assert len(games_of(8, 0).moves) == 0


def test_names_of_squares_and_their_errors():
    board = Board(8)
    assert [board.square(name) for name in ("a1", "H8", "f5")] == [0, 63, 37]
    with pytest.raises(UserError, match="a1 to h8"):
        board.square("i9")
    with pytest.raises(BadConfig, match="size 7"):
        Board(7)
    with pytest.raises(UserError, match="at most 60 moves"):
        replay(board, np.zeros((1, 61), np.int8))
    with pytest.raises(UserError, match="square 64"):
        replay(board, np.full((1, 3), 64, np.int8))


def test_a_game_goes_on_from_any_of_its_boards_as_from_the_usual_one():
    games = games_of(8, 200)
    at = np.random.default_rng(0).integers(0, games.length)
    rows = np.arange(200)
    moves = np.full((200, 60), NONE, np.int8)
    for i, ply in enumerate(at):
        moves[i, : 60 - ply] = games.moves[i, ply:]
    start = StartBoards(games.own[rows, at], games.other[rows, at], games.black[rows, at])
    again, illegal = replay(games.board, moves, start=start)
    assert not illegal
    assert (again.length == games.length - at).all()
    assert again.finished.all()
    for one, other in zip(again.colours(np.array([-1])), games.colours(np.array([-1])), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (again.black[rows, 1] == games.black[rows, at + 1]).all()


def test_a_start_that_fits_neither_games_nor_board_is_refused():
    one, none = np.array([3], np.uint64), np.zeros(2, np.int8)
    with pytest.raises(UserError, match="2 games need as many boards"):
        replay(Board(8), none[:, None] - 1, start=StartBoards(one, one, np.array([True])))
    with pytest.raises(UserError, match="two discs on a square"):
        replay(Board(8), none[:1, None] - 1, start=StartBoards(one, one, np.array([True])))
    with pytest.raises(UserError, match="beside the board"):
        replay(Board(4), none[:1, None] - 1, start=StartBoards(one, one << np.uint64(20), np.array([True])))


@pytest.mark.parametrize("flanked", ["flipped", "ends", "removed"])
@sizes
def test_a_square_is_legal_where_one_of_its_patterns_is_there(size, flanked):
    games = games_of(size, 20, flanked=flanked)
    board = games.board
    there = patterns_on(games.own, games.other, board).astype(float)
    said = any_pattern(there.reshape(-1, there.shape[-1]), board) > 0.5
    assert (said.reshape(*games.own.shape, -1) == unpack(games.legal, board)[..., list(board.playable)]).all()


def test_there_are_as_many_flanking_patterns_as_published():
    assert [len(patterns_of(Board(size)).square) for size in (4, 6, 8)] == [56, 316, 960]


def test_probabilities_of_patterns_are_joined_as_of_independent_ones():
    board = Board(4)
    square = patterns_of(board).square
    joined = any_pattern(np.full((1, len(square)), 0.5), board)[0]
    counts = np.array([(square == each).sum() for each in board.playable])
    np.testing.assert_allclose(joined, 1 - 0.5**counts)


@pytest.mark.parametrize("flanked", ["flipped", "ends", "removed"])
def test_by_their_own_rules_the_same_moves_make_the_same_boards(flanked):
    games = games_of(6, 30, flanked=flanked)
    played = np.arange(games.own.shape[1]) <= games.length[:, None]
    for mine, theirs in zip(as_if(games, flanked), (games.own, games.other), strict=True):
        assert (mine == theirs)[played].all()
    others = as_if(games, "flipped" if flanked == "ends" else "ends")
    assert (others[0] != games.own)[played].mean() > 0.3
    assert ((others[0] & others[1]) == 0).all()


def test_a_run_of_two_has_no_middle_and_a_run_of_three_has():
    two, three = games_of(4, 50, flanked="ends"), games_of(6, 50, flanked="ends")
    assert (two.own == games_of(4, 50).own).all()
    assert (three.own != games_of(6, 50).own).any()


def test_tensors_refuse_a_variant():
    with pytest.raises(BadConfig, match="'ends'"):
        legal_moves(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), Board(6, "ends"))

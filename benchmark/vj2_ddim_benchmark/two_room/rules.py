"""CLEAR-LeWM's published rules for TwoRoom: which pairs are asked, and when one is solved.

A pair is a start and a goal some steps later in one recorded episode: in different rooms, the disk
clear of the walls at both, not yet solved, and every recorded move between them legal. Moderate:
the first time that the agent is within 16 pixels. Strict: the first time that it is within 8, in
the goal's room, by a route without an illegal move and through the door at least once. One set of
pairs serves both: none is solved at its start under the wider radius, so none is under the other.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise

import numpy as np

from vj2_ddim_benchmark.two_room.geometry import MODERATE_RADIUS, STRICT_RADIUS, Point, Rooms
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.interface import FloatArray


@dataclass(frozen=True)
class Pair:
    """A problem: where in the recording, and the positions in pixels."""

    episode: int
    first_step: int
    start: Point
    goal: Point


@dataclass(frozen=True)
class Manifest:
    """The problems of one seed, which is also that of the policy."""

    seed: int
    goal_offset: int  # steps from start to goal
    recording: str  # the sha256 of its positions
    pairs: tuple[Pair, ...]

    def sha256(self) -> str:
        """Of everything in it."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """What a route is worth; a success is told by its step, counted from 1."""

    moderate: int | None
    strict: int | None
    illegal_moves: int
    crossings: int  # legal moves from one room to the other


def eligible(positions: FloatArray, goal_offset: int, rooms: Rooms) -> list[int]:
    """The steps of one episode, positions `[S, 2]`, at which a pair may begin."""
    points = [(float(x), float(y)) for x, y in positions]
    moves = pairwise(points)
    illegal = np.cumsum([0, *(not rooms.is_legal(*move) for move in moves)])
    return [
        step
        for step in range(len(points) - goal_offset)
        if rooms.side(points[step]) != rooms.side(points[step + goal_offset])
        and math.dist(points[step], points[step + goal_offset]) >= MODERATE_RADIUS
        and illegal[step] == illegal[step + goal_offset]
    ]


def choose_pairs(
    episodes: Sequence[FloatArray], num: int, seed: int, goal_offset: int = 25,
    rooms: Rooms = Rooms(),  # noqa: B008
) -> Manifest:  # fmt: skip
    """One pair of each of `num` episodes, given by their positions `[S, 2]`.

    Raises:
        DataError: Fewer than `num` episodes have one.
    """
    rng, pairs = np.random.default_rng(seed), list[Pair]()
    for episode in rng.permutation(len(episodes)):
        steps = eligible(episodes[episode], goal_offset, rooms)
        if not steps or len(pairs) == num:
            continue
        first = int(rng.choice(steps))
        start, goal = (episodes[episode][step].tolist() for step in (first, first + goal_offset))
        pairs.append(Pair(int(episode), first, tuple(start), tuple(goal)))
    if len(pairs) < num:
        raise DataError(
            f"{len(pairs)} of {len(episodes)} recorded episodes have a pair that crosses the wall "
            f"in {goal_offset} steps, {num} are needed: record more episodes"
        )
    recorded = sha256(np.concatenate(episodes).astype(np.float32).tobytes()).hexdigest()
    return Manifest(seed, goal_offset, recorded, tuple(pairs))


def judge(route: Sequence[Point], goal: Point, rooms: Rooms = Rooms()) -> Verdict:  # noqa: B008
    """Judge a route, which begins with the start, under both rules."""
    moderate = strict = None
    illegal = crossings = 0
    for step, (before, at) in enumerate(pairwise(route), start=1):
        legal = rooms.is_legal(before, at)
        illegal += not legal
        crossings += legal and rooms.side(before) != rooms.side(at)
        away = math.dist(at, goal)
        if moderate is None and away < MODERATE_RADIUS:
            moderate = step
        arrived = away < STRICT_RADIUS and rooms.side(at) == rooms.side(goal)
        if strict is None and arrived and crossings and not illegal:
            strict = step
    return Verdict(moderate, strict, illegal, crossings)

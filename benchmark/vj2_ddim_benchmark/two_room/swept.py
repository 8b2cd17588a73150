"""The host's TwoRoom in which the whole disk sweeps along each move, as an environment of its own.

The host looks at a move's end only, so that a move may jump through the wall or clip the doorway.
"""

import math
from typing import Any

import torch
from torch import Tensor

from vj2_ddim_benchmark.two_room import import_stable_worldmodel
from vj2_ddim_benchmark.two_room.geometry import STRICT_RADIUS, Point, Rooms
from vj2_ddim_plugin.errors import ConfigError

_TwoRoom: Any = import_stable_worldmodel("envs.two_room").TwoRoomEnv


class SweptTwoRoom(_TwoRoom):  # type: ignore[misc]
    """Ends near the goal, by the stricter rule; keeps the route since the start was set."""

    route: list[Point]

    def _cache_params(self) -> None:
        super()._cache_params()
        if self.wall_axis != 1 or self.num_doors != 1:
            found = f"wall axis {self.wall_axis} and {self.num_doors} doors"
            raise ConfigError(f"TwoRoom with a swept disk has one vertical wall, one door: {found}")
        half = self.wall_thickness // 2
        door, extent = float(self.door_positions[0]), float(self.door_sizes[0])
        self.rooms = Rooms(
            radius=float(self.variation_space["agent"]["radius"].value.item()),
            size=float(self.IMG_SIZE),
            border=float(self.BORDER_SIZE),
            wall=(float(self.WALL_CENTER - half), float(self.WALL_CENTER + half)),
            door=(door - extent, door + extent),
        )

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Tensor, dict[str, Any]]:  # noqa: ANN401
        """As the host's; an agent that would begin within the border begins beside it."""
        _, info = super().reset(seed=seed, options=options)
        self._set_state(self.rooms.within(self.agent_position.tolist()))
        return self._get_obs(), {**info, **self._get_info()}

    def step(self, action: Any) -> tuple[Tensor, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """As the host's, but for the collisions and what ends it."""
        obs, reward, _, truncated, info = super().step(action)
        at, goal = self.agent_position.tolist(), self.target_position.tolist()
        self.route.append(tuple(at))
        there = math.dist(at, goal) < STRICT_RADIUS and self.rooms.side(at) == self.rooms.side(goal)
        return obs, reward, there, truncated, info

    def _set_state(self, state: Any) -> None:  # noqa: ANN401
        super()._set_state(state)
        self.route = [tuple(self.agent_position.tolist())]

    def _apply_collisions(self, pos1: Tensor, pos2: Tensor) -> Tensor:
        return torch.tensor(self.rooms.move(pos1.tolist(), pos2.tolist()), dtype=torch.float32)

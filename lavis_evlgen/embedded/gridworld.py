"""A room of MiniGrid in which BabyAI's bot carries out a mission. Imports minigrid, which the rest does without."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from minigrid.core.world_object import Door
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling, RoomGridLevel
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc, OpenInstr, PickupInstr, PutNextInstr
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from lavis_evlgen.embedded.missions import Item, Mission

CELLS = 8  # a side of the room, its walls counted
NEAREST_START = 4  # cells between agent and goal; who begins beside the goal shows no direction
_INSTRUCTIONS = {"go to": GoToInstr, "pick up": PickupInstr, "open": OpenInstr, "put next to": PutNextInstr}


class Room(RoomGridLevel):
    """One room with a mission's items at random places, doors in the outer wall."""

    def __init__(self, mission: Mission):
        self.asked = mission
        super().__init__(room_size=CELLS, num_rows=1, num_cols=1)

    def gen_mission(self) -> None:
        """Place items and agent; BabyAI's part of a level."""
        asked = self.asked
        where = {item: self._place(item) for item in (*asked.items, *asked.others)}
        self.place_agent(0, 0)
        if np.abs(np.subtract(self.agent_pos, where[asked.items[0]])).sum() < NEAREST_START:
            raise RejectSampling("the agent begins beside its goal")
        self.check_objs_reachable()
        self.instrs = _INSTRUCTIONS[asked.verb](*(ObjDesc(item.kind, item.colour) for item in asked.items))

    def _place(self, item: Item) -> Any:
        if item.kind != "door":
            return self.add_object(0, 0, item.kind, item.colour)[1]
        last = CELLS - 1
        # corners cannot be reached
        wall = [(x, y) for x, y in product(range(CELLS), repeat=2) if (x in (0, last)) != (y in (0, last))]
        x, y = wall[self._rand_int(0, len(wall))]
        door = Door(item.colour)
        self.grid.set(x, y, door)
        door.cur_pos = x, y
        return x, y


def solve(mission: Mission, seed: int, tile: int) -> tuple[str, list[np.ndarray], list[int]] | None:
    """The whole episode of a mission that the bot carries out in a room of that seed.

    Args:
        tile: pixels of a cell's side.

    Returns:
        BabyAI's sentence, every frame (uint8 [H, W, 3], the first before any action), and the numbers of the frames
        right after the agent took, dropped or opened something; None where the bot failed.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # MiniGrid prints every arrangement that it rejects
        room = Room(mission)
        room.reset(seed=seed)
    bot = BabyAIBot(room)
    frames, acts = [_frame(room, tile)], []
    acting = (room.actions.pickup, room.actions.drop, room.actions.toggle)
    try:
        for action in _actions(bot, room.max_steps):
            _, reward, terminated, truncated, _ = room.step(action)
            frames.append(_frame(room, tile))
            if action in acting:
                acts.append(len(frames) - 1)
            if terminated or truncated:
                return (room.mission, frames, acts) if terminated and reward > 0 else None
    except (AssertionError, DisappearedBoxError):  # the bot stands before something that it does not expect
        pass
    return None


def _actions(bot: BabyAIBot, most: int) -> Iterator[Any]:
    for _ in range(most):
        yield bot.replan()


def _frame(room: Room, tile: int) -> np.ndarray:
    """The whole room from above, without the field of view that MiniGrid lights up: it would show the goal."""
    x, y = room.agent_pos
    return room.grid.render(tile, (int(x), int(y)), room.agent_dir)

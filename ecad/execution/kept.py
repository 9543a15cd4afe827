"""What a pass keeps between rows: values by their positions, and the memory of those that were given up."""

from __future__ import annotations

from typing import Any


class KeptValues(dict[int, Any]):
    """Position in `Layout.values` -> tensor.

    A component may ask for `room` and have its value written there: the memory of the value that was given up last,
    which still lies in the processor's cache and in pages that are mapped. New tensors would lie somewhere else each
    time, among those that a component needs for a moment. (Storybook on a CPU, batch 8: 3 to 5 % of an irregular
    schedule's time.) A component that makes tensors of its own may put those in as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rooms: dict[int, Any] = {}  # by identity: all that were given out
        self._free: list[Any] = []

    def room(self, like: Any) -> Any:
        """A tensor like this one whose contents nobody needs any more, or a new one."""
        free = self._free
        if free and free[-1].shape == like.shape and free[-1].dtype == like.dtype:
            return free.pop()
        self.release()  # those of another shape, as from before T-GATE's gate, serve nobody any more
        made = like.new_empty(like.shape)
        self._rooms[id(made)] = made
        return made

    def release(self) -> None:
        """Hold no memory but that of the values; done where other tensors are about to need it."""
        for room in self._free:
            del self._rooms[id(room)]
        self._free.clear()

    def held(self) -> list[Any]:
        """All tensors whose memory is held: the values, and rooms without one."""
        return [*self.values(), *self._free]

    def __setitem__(self, position: int, value: Any) -> None:
        if position in self:
            del self[position]
        super().__setitem__(position, value)

    def __delitem__(self, position: int) -> None:
        value = self.pop(position)
        if id(value) in self._rooms:
            self._free.append(value)

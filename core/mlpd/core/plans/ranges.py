"""Where arrays lie in memory, and which of them share bytes."""

from dataclasses import dataclass

from mlpd.core.devices.arrays import Array, address_of


@dataclass(frozen=True)
class Range:
    """The bytes that an array spans in memory, gaps included: from ``start`` to before ``end``."""

    start: int
    end: int

    @classmethod
    def of(cls, array: Array) -> "Range":
        """Return the range of ``array``."""
        start = address_of(array)
        if not array.size:
            return cls(start, start)
        spans = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
        before, after = (sum(pick(span, 0) for span in spans) for pick in (min, max))
        return cls(start + before, start + after + array.itemsize)

    def meets(self, other: "Range") -> bool:
        """Whether the two have a byte in common."""
        return self.start < other.end and other.start < self.end

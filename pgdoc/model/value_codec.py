"""How a store converts values, in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgdoc.model.json_codec import decode_decimals
from pgdoc.model.short_repr import short_repr

if TYPE_CHECKING:
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.model.values import Encoder

__all__ = ["USUAL_VALUES", "ValueCodec"]


@dataclass(frozen=True, slots=True)
class ValueCodec:
    """The options of a store for values.

    Attributes:
        encoder: converts values that JSON does not have; `None` for the usual forms.
        decode: decodes stored data; `None` for `json_codec.decode`.
    """

    encoder: Encoder | None = None
    decode: JsonDecoder | None = None

    @classmethod
    def checked(cls, encoder: Any, *, decimals: Any) -> ValueCodec:
        """Check the arguments of a store."""
        if encoder is not None and not callable(encoder):
            raise ValueError(f"encoder must be a function of a value, got {short_repr(encoder)}")
        if not isinstance(decimals, bool):
            raise ValueError(f"decimals must be True or False, got {short_repr(decimals)}")  # noqa: TRY004 (as for others)
        return cls(encoder, decode_decimals if decimals else None)


USUAL_VALUES: Final = ValueCodec()

"""What a touch is: press segments, what is diffused of them, and which ones are valid."""

__all__: list[str] = []

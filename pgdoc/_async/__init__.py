"""The facade as it is written: for asyncio."""

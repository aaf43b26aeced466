"""What holds for every test."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: the workers of one run must give a test one name, and bytes may hold the time."""
    return argname if isinstance(val, bytes) else None

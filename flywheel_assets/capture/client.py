"""Keeps the old import path of the Python client, which is now `flywheel-client` in `clients/python`."""

try:
    from flywheel_client import ClientCounts, DeliveryLimits, FlywheelClient, Interaction
except ModuleNotFoundError as error:
    raise ImportError(
        "flywheel_assets.capture.client is now flywheel_client, and that is not installed: pip install flywheel-client"
        " (in a checkout of this project: pip install ./clients/python)"
    ) from error

__all__ = ["ClientCounts", "DeliveryLimits", "FlywheelClient", "Interaction"]

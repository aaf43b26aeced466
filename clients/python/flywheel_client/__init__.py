"""Provides the Python client of a flywheel: `FlywheelClient` sends a model's outputs and people's reactions to them."""

from flywheel_client.client import HIGH_RATING, ClientCounts, FlywheelClient, Interaction, Prompt, SignalName
from flywheel_client.delivery import Answer, DeliveryCounts, DeliveryLimits, Event, Transport
from flywheel_client.sampling import is_sampled, sampling_position

__version__ = "0.1.0"

__all__ = [
    "HIGH_RATING",
    "Answer",
    "ClientCounts",
    "DeliveryCounts",
    "DeliveryLimits",
    "Event",
    "FlywheelClient",
    "Interaction",
    "Prompt",
    "SignalName",
    "Transport",
    "is_sampled",
    "sampling_position",
]

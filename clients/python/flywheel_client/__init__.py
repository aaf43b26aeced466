"""Provides the Python client of a flywheel: `FlywheelClient` sends a model's outputs and people's reactions to them."""

from flywheel_client.client import ClientCounts, FlywheelClient
from flywheel_client.delivery import Answer, DeliveryCounts, DeliveryLimits, Event, Transport
from flywheel_client.interactions import HIGH_RATING, EditSession, Interaction, Output, SignalName
from flywheel_client.messages import Message, Prompt, Text, Tools
from flywheel_client.routing import assign, assign_by_event, routing_position
from flywheel_client.sampling import is_sampled, sampling_position
from flywheel_client.signing import sign_user

__version__ = "0.1.0"

__all__ = [
    "HIGH_RATING",
    "Answer",
    "ClientCounts",
    "DeliveryCounts",
    "DeliveryLimits",
    "EditSession",
    "Event",
    "FlywheelClient",
    "Interaction",
    "Message",
    "Output",
    "Prompt",
    "SignalName",
    "Text",
    "Tools",
    "Transport",
    "assign",
    "assign_by_event",
    "is_sampled",
    "routing_position",
    "sampling_position",
    "sign_user",
]

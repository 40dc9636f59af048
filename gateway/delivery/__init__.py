"""From the outbox to the archives: workers, retries, a circuit breaker per archive."""

from gateway.delivery.breaker import Breaker, Circuit
from gateway.delivery.prepared import Item
from gateway.delivery.retry import RetryPolicy
from gateway.delivery.uploader import Uploader
from gateway.delivery.worker import Delivery, Settings, stop_all

__all__ = ["Breaker", "Circuit", "Delivery", "Item", "RetryPolicy", "Settings", "Uploader", "stop_all"]

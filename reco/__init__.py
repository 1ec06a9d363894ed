"""The domain: events, features, models, rules, subscribers, campaigns, outcomes.

Plain Python; never imports Ray.
"""

__version__ = "0.1.0"

"""The graph on one screen: Gateway -> Features -> Scorer -> Rules -> Renderer.

Runs by `reco serve`, `serve run serve.app:build` and `serve run configs/serve.yaml`.
"""

from typing import Any, Final

from ray import serve
from ray.serve import Application, Deployment

from reco.settings import read_settings
from serve.app_args import AppArgs
from serve.deployments import Features, Renderer, Rules
from serve.gateway import Gateway
from serve.scorer import Scorer

CHUNKS_AT_ONCE: Final = 8  # of one replica: several chunks of a campaign are under way together
REQUESTS_AT_ONCE: Final = 512  # at the door, where single sends are gathered into chunks


def build(args: AppArgs) -> Application:
    """The application of one installation."""
    home = str(read_settings(args.home).home.expanduser().absolute())
    model = {"model": args.model, "device": args.device}
    features = stage(Features).bind(home)
    scorer = stage(Scorer, user_config=model).bind(home)
    rules = stage(Rules).bind(home)
    renderer = stage(Renderer).bind(home)
    gateway = stage(Gateway, max_ongoing_requests=REQUESTS_AT_ONCE)
    budgets = (args.door_budget_s, args.scorer_budget_s)
    return gateway.bind(home, *budgets, features, scorer, rules, renderer)


def stage(body: type, **options: Any) -> Deployment:
    """A deployment named as its class; configs/serve.yaml overrides any of its options."""
    small = {"num_cpus": 0.1}  # a claim for placement, not a limit: the demo has two cores
    # A line for each request costs more than its routing.
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    defaults: dict[str, Any] = {
        "max_ongoing_requests": CHUNKS_AT_ONCE,
        "ray_actor_options": small,
        "logging_config": quiet,
    }
    return serve.deployment(**(defaults | options))(body)

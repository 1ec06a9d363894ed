"""Structured logs: one event a line on stderr, for people or as JSON. stdout is for results."""

import logging
import sys

import structlog


def configure(json: bool = False, level: int = logging.INFO) -> None:
    """Set up structlog for this process; call it once, in an entry point or a deployment."""
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        # The pretty traceback prints local variables, which hold keys and addresses.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if json else []),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each write: tests and progress bars exchange sys.stderr.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )

"""The main job at work: 25 customers of a Stripe-compatible server come aboard, one with a wrong key."""

from worker.demo.run import run_demo

__all__ = ["run_demo"]

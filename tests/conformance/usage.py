"""Stripe's official SDK drives what the sandbox knows of usage, and Stripe's own description of the API judges both."""

import metered_invoices
import meters
import recorded

for check in [*meters.CHECKS, *metered_invoices.CHECKS, recorded.judge_answers, recorded.judge_requests]:
    check()
    print(f"{check.__name__}: passed")

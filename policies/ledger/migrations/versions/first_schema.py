"""The chain, its head, budgets, plans and attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "ledgerentry",
        sa.Column("index", sa.Integer(), primary_key=True),
        sa.Column("previous", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
    )
    op.create_table(
        "ledgerhead",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
    )
    op.create_table(
        "ledgerbudget",
        sa.Column("population", sa.String(), primary_key=True),
        sa.Column("epsilon", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
    )
    _plans()
    _attempts()


def _plans() -> None:
    op.create_table(
        "ledgerplan",
        sa.Column("plan_hash", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scientist", sa.String(), nullable=False),
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("events", sa.String(), nullable=False),
        sa.Column("spare_attempts", sa.Integer(), nullable=False),
        sa.Column("summary", sa.String(), nullable=False),
        sa.Column("submitted", sa.String(), nullable=False),
        sa.Column("decided", sa.String(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
    )
    op.create_index("ix_ledgerplan_population", "ledgerplan", ["population"])


def _attempts() -> None:
    op.create_table(
        "ledgerattempt",
        sa.Column("plan_hash", sa.String(), primary_key=True),
        sa.Column("step", sa.String(), primary_key=True),
        sa.Column("release", sa.Integer(), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True),
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("noise_multiplier", sa.Float(), nullable=False),
        sa.Column("sampling_rate", sa.Float(), nullable=False),
        sa.Column("repeat", sa.Boolean(), nullable=False),
        sa.Column("share", sa.String(), nullable=False),
    )
    op.create_index(
        "ledgerattempt_spend",
        "ledgerattempt",
        ["population", "state", "plan_hash", "noise_multiplier", "sampling_rate", "repeat"],
    )

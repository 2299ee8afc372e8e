"""The main job, end to end: three partners train one recommender on real data they don't share.

Every part is real: nodes and hub are processes of their own, owners approve with their own keys,
the rounds run under SMPC with enforced noise, and the verifier reads the ledgers afterwards.
"""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.text import Text

from coterie import baselines
from coterie.commands.output import console, print_table
from coterie.commands.plan import federation_of, print_answers, print_quotes
from coterie.commands.run import train_with_bar
from coterie.home import Home
from coterie.hub import start_hub, stop_hub
from coterie.outcome import Outcome, report
from coterie.pages import Place, dashboard_command
from coterie.partners import (
    add_data,
    card_of,
    create_domain,
    invite,
    open_owner,
    pin_peer,
    start_domain,
    stop_domain,
)
from coterie.processes import free_ports, running, start
from coterie.scripts import Script
from network.federation import Federation, FederationError
from network.hub import admit_member
from network.training import NotApproved, Run, RunInterrupted
from recommenders.datasets import Benchmark, hold_out_last, read_benchmark
from recommenders.movielens import movielens_100k
from recommenders.splits import split_by_taste

PARTNERS = ("north", "east", "south")
PRIVATE, PUBLIC = "interactions", "interactions-public"
INTERACTIONS_PER_USER = 1024
SCRIPT = Path(__file__).parents[1] / "examples" / "movielens_mf.py"
_REVIEW_POLL_S = 2.0


@dataclass
class Demo:
    """One demonstration in its own home; see `coterie demo --help` for the options."""

    home: Home
    data: Path | None
    epsilons: Sequence[float]
    seed: int
    deny: str | None
    review: bool
    serve: bool
    results: Path
    json_file: Path | None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Run every step; processes are stopped at the end unless asked to stay.

        Raises:
            NotApproved, RunInterrupted, DataRefused, DataUnavailable and what commands raise.
        """
        if self.deny is not None and self.deny not in PARTNERS:
            raise FederationError(f"'{self.deny}' is no partner here: {', '.join(PARTNERS)}.")
        keep_running = self.serve
        try:
            self._run()
        except RunInterrupted as stopped:
            keep_running = True
            raise RunInterrupted(
                f"{stopped}\nThe other processes stay up. This demo's home: --home {self.home.path}"
            ) from None
        finally:
            if not keep_running:
                self._stop_all()

    def _run(self) -> None:
        with self._phase("data"):
            benchmark = self._benchmark()
            parts = self._prepare(benchmark)
        with self._phase("start nodes and hub"):
            self._start_all()
        with self._phase("invite and look"):
            federation = self._invite_scientist()
            self._show_mocks(federation)
        private = {e: self._train(federation, PRIVATE, e) for e in self.epsilons}
        public = self._train(federation, PUBLIC, None)
        with self._phase("baselines"):
            rows = self._compare(benchmark, parts, federation, private, public)
        outcome = Outcome(federation, rows, private, public, self.seconds)
        report(outcome, self.home, self.results, self.json_file)
        if self.serve:
            self._serve_dashboard()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        console.rule(Text(name, "bold"))
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)

    def _benchmark(self) -> Benchmark:
        if self.data is not None:
            benchmark = read_benchmark(self.data, self.seed)
        else:
            benchmark = hold_out_last(movielens_100k(), "MovieLens-100K", self.seed)
        users, items = benchmark.train["user"].nunique(), len(benchmark.catalogue)
        console.print(
            f"{benchmark.name}: {users} users, {items} items, {len(benchmark.train)} interactions, "
            f"{len(benchmark.test)} held out",
            highlight=False,
        )
        return benchmark

    def _prepare(self, benchmark: Benchmark) -> dict[str, pd.DataFrame]:
        """Split the users, make the domains, put each part into its partner's own folder."""
        self._stop_all()
        shutil.rmtree(self.home.path, ignore_errors=True)
        parts = split_by_taste(benchmark.train, PARTNERS, seed=self.seed)
        handover = self.home.path / "handover"
        handover.mkdir(mode=0o700, parents=True)
        catalogue = handover / "catalogue.txt"
        catalogue.write_text("".join(f"{item}\n" for item in benchmark.catalogue))
        for name, port in zip(PARTNERS, free_ports(len(PARTNERS)), strict=True):
            create_domain(self.home, name, "127.0.0.1", port)
            part = parts[name]
            file, holdout = handover / f"{name}.csv", handover / f"{name}-holdout.csv"
            part.to_csv(file, index=False)
            hers = benchmark.test["user"].isin(part["user"].unique())
            benchmark.test[hers].to_csv(holdout, index=False)
            for dataset in (PRIVATE, PUBLIC):
                self._add(name, dataset, file, holdout, catalogue, part["user"].nunique())
        shutil.rmtree(handover)
        self._pin_everyone()
        sizes = [[n, parts[n]["user"].nunique(), len(parts[n])] for n in PARTNERS]
        print_table("Partners (known to this demo, which split a public file)",
                    ["partner", "users", "interactions"], sizes)  # fmt: skip
        return parts

    def _add(
        self, name: str, dataset: str, file: Path, holdout: Path, catalogue: Path, users: int
    ) -> None:
        add_data(
            self.home.domain(name),
            file=file,
            catalogue=catalogue,
            dataset=dataset,
            population=f"{name}-{dataset}",
            users=declared_users(users),
            interactions_per_user=INTERACTIONS_PER_USER,
            holdout=holdout,
            epsilon=sum(self.epsilons) * 1.25,
            public=dataset == PUBLIC,
        )

    def _pin_everyone(self) -> None:
        cards = {name: card_of(self.home.domain(name)) for name in PARTNERS}
        for name in PARTNERS:
            for peer, card in cards.items():
                if peer != name:
                    pin_peer(self.home.domain(name), peer, card.node_key, card.owner_key)

    def _start_all(self) -> None:
        """Hub and nodes at once, each in its own process."""
        (port,) = free_ports(1)
        with ThreadPoolExecutor(4) as pool:
            hub = pool.submit(start_hub, self.home, "127.0.0.1", port)
            nodes = [pool.submit(start_domain, self.home, name, None) for name in PARTNERS]
            url = hub.result()
            addresses = [node.result() for node in nodes]
        from network.hub import announce, directory

        for name in PARTNERS:
            card = card_of(self.home.domain(name))
            admit_member(self.home.hub, name, card.node_key)
            announce(url, card)
        listed = ", ".join(directory(url))
        console.print(f"hub at {url} lists {listed}; nodes at {', '.join(addresses)}",
                      highlight=False)  # fmt: skip

    def _invite_scientist(self) -> Federation:
        for name in PARTNERS:
            invite(self.home, name, "scientist@university.example", "scientist", self.home.accounts)
        return federation_of(self.home, None)

    def _show_mocks(self, federation: Federation) -> None:
        for name, node in federation.nodes.items():
            mock = baselines.read_mock(node, self.home.accounts, PRIVATE)
            console.print(f"{name}: a mock made from the declaration, not from rows")
            console.print(mock.head(3).to_string(index=False), highlight=False)

    def _train(self, federation: Federation, dataset: str, epsilon: float | None) -> Run:
        label = (
            f"{dataset} at epsilon {epsilon:g}"
            if epsilon is not None
            else (f"{dataset} without noise: NOT PRIVATE, its owners declared it public")
        )
        script = Script(str(SCRIPT), dataset, epsilon, self.seed)
        with self._phase(f"quote and approve: {label}"):
            plan = script.plan(federation)
            print_quotes(federation.quote(plan))
            print_answers(federation.submit(plan))
            plan_hash = federation.bind(plan).hash
            self._decide(federation, plan_hash)
        with self._phase(f"train: {label}"):
            return train_with_bar(federation, script, self.home.runs / plan_hash[:16])

    def _decide(self, federation: Federation, plan_hash: str) -> None:
        if self.review:
            self._wait_for_review(federation, plan_hash)
            return
        for name in PARTNERS:
            owner = open_owner(self.home, name)
            shown = owner.show(plan_hash)
            if name == PARTNERS[0]:
                console.print(summary_of(shown["explanation"]), markup=False, highlight=False)
                command = f"coterie requests show {plan_hash[:12]} --domain {name}"
                console.print(
                    f"Its graphs and source: {command} --home {self.home.path}\n",
                    highlight=False,
                    soft_wrap=True,
                )
            if name == self.deny:
                status = owner.deny(plan_hash, "denied on request: coterie demo --deny")
            else:
                status = owner.approve(plan_hash, "approved by the demo on the owner's behalf")
            console.print(f"{name}'s owner: {status}", highlight=False)
        standing = federation.status(plan_hash)
        if any(plan["status"] != "approved" for plan in standing.values()):
            raise NotApproved(standing)

    def _wait_for_review(self, federation: Federation, plan_hash: str) -> None:
        start_dashboards = "; ".join(
            f"coterie dashboard --domain {name} --home {self.home.path}" for name in PARTNERS
        )
        console.print(
            f"Waiting for every owner's decision on {plan_hash[:12]}. In another terminal: "
            f"coterie requests approve {plan_hash[:12]} --domain NAME --home {self.home.path}\n"
            f"or: {start_dashboards}",
            highlight=False,
            soft_wrap=True,
        )
        while True:
            standing = federation.status(plan_hash)
            states = {plan["status"] for plan in standing.values()}
            if states == {"approved"}:
                return
            if states & {"denied", "refused", "closed"}:
                raise NotApproved(standing)
            time.sleep(_REVIEW_POLL_S)

    def _compare(
        self,
        benchmark: Benchmark,
        parts: Mapping[str, pd.DataFrame],
        federation: Federation,
        private: Mapping[float, Run],
        public: Run,
    ) -> list[baselines.Row]:
        script = Script(str(SCRIPT), PUBLIC, None, self.seed)
        offline = baselines.Offline(
            benchmark, script.write, federation.bind, federation.data(PUBLIC)
        )
        from_file = "computed by the demo from the public file"
        rows = [offline.popularity(f"popularity ({from_file})")]
        for name in PARTNERS:
            alone = offline.train(parts[name], declared_users(parts[name]["user"].nunique()))
            rows.append(offline.row(f"{name} alone ({from_file})", alone, None))
        rows += [
            offline.row(f"Coterie, epsilon {epsilon:g}", run.state, run.epsilon)
            for epsilon, run in private.items()
        ]
        rows.append(offline.row("Coterie without noise: NOT PRIVATE", public.state, None))
        together = offline.train(
            benchmark.train, sum(declared_users(p["user"].nunique()) for p in parts.values())
        )
        rows.append(offline.row(f"central ({from_file})", together, None))
        return rows

    def _serve_dashboard(self) -> None:
        console.rule(Text("left running", "bold"))
        for name in PARTNERS:
            node = open_owner(self.home, name, with_key=False).node.url
            for what, where in (
                ("node", node),
                ("dashboard", self._start_dashboard(name)),
                ("owner's login", self.home.owner_login(name)),
                ("owner's key", self.home.owner_key(name)),
            ):
                console.print(f"{name}  {what}: {where}", highlight=False, soft_wrap=True)
        console.print(
            f"Stop each node and its dashboard: coterie domain stop NAME --home {self.home.path}; "
            f"the hub: coterie hub stop --home {self.home.path}",
            soft_wrap=True,
        )

    def _start_dashboard(self, name: str) -> str:
        (port,) = free_ports(1)
        folder = self.home.domain(name)
        start(
            f"{name}'s dashboard",
            dashboard_command(self.home, name, None, Place(port=port)),
            folder.path / "dashboard.pid",
            folder.path / "dashboard.log",
            "127.0.0.1",
            port,
            f"http://127.0.0.1:{port}/_stcore/health",
        )
        return f"http://127.0.0.1:{port}"

    def _stop_all(self) -> None:
        for name in self.home.domains():
            if self.home.domain(name).settings_file.exists():
                stop_domain(self.home, name)
        if running(self.home.hub / "node.pid") is not None:
            stop_hub(self.home)


def declared_users(users: int) -> int:
    """The bound an owner would declare: her users, rounded up to the next hundred."""
    return int(np.ceil(users / 100) * 100)


def summary_of(explanation: str) -> str:
    """The explanation without graphs and sources, which `coterie requests show` prints."""
    return re.split(r"\n(?=What \S+ computes for each user|Source of )", explanation)[0].rstrip()

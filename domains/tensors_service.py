"""What a node answers about tensors that stay shared between the domains."""

import json

import numpy as np
from syft.serde.serializable import serializable
from syft.service.context import AuthedServiceContext
from syft.service.service import service_method
from syft.service.user.user_roles import DATA_SCIENTIST_ROLE_LEVEL

from domains.answering import Answering, answering
from domains.arguments import bytes_of, json_list, json_object, octets_of
from domains.computing import compute
from network.smpc.comparisons import Comparison, Offer
from network.smpc.sharing import TensorKey
from network.smpc.tensors import Operation, read_matrix


@serializable(canonical_name="CoterieTensors", version=1)
class CoterieTensors(Answering):
    """The `coterie.tensor_*` methods, for the scientist whose plan it is."""

    @service_method(path="coterie.tensor_key", name="tensor_key", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def tensor_key(
        self, context: AuthedServiceContext, plan_hash: str, step: str, number: int
    ) -> str:
        """This node's fresh key for sharing a kept step's sum, which `number` tells from others."""
        self.own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            return json.dumps(tensors.key(step, number).to_dict())

    @service_method(
        path="coterie.tensor_share", name="tensor_share", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @answering
    def tensor_share(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        number: int,
        keys: str,
        state: np.ndarray,
        state_digest: str = "",
    ) -> str:
        """Compute a kept step's sum, keep a share of it, and answer the tensors' names.

        `state`: safetensors as bytes; none of them where `state_digest` names the state held here.
        """
        self.own_plan(context, plan_hash)
        parsed = [TensorKey.from_dict(key) for key in json_list(keys)]
        with self.participation.tensors(plan_hash) as tensors:
            names = tensors.share(step, number, parsed, state_digest or octets_of(state))
            return json.dumps(names)

    @service_method(
        path="coterie.tensor_apply", name="tensor_apply", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @answering
    def tensor_apply(
        self, context: AuthedServiceContext, plan_hash: str, operation: str, matrix: np.ndarray
    ) -> str:
        """Make a tensor of others by a public-linear map; answers its name and what is proven.

        `matrix`: little-endian int64 as bytes, or none.
        """
        self.own_plan(context, plan_hash)
        asked = Operation.read(operation)
        bytes_of(matrix)
        with self.participation.tensors(plan_hash) as tensors:
            name = tensors.apply(asked, read_matrix(matrix, asked.shape))
            return json.dumps({"name": name, "proven": tensors.tensor(name).proven.to_json()})

    @service_method(
        path="coterie.tensor_compute", name="tensor_compute", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @answering
    def tensor_compute(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        phase: str,
        said: str,
        words: np.ndarray,
    ) -> np.ndarray:
        """One step of a product or truncation; `network.smpc.dealing` has them and what they say.

        `said`: JSON; `words`: 64-bit words as bytes. The answer is packed as `dealing.pack` does.
        """
        self.own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            return compute(tensors, phase, json_object(said), bytes_of(words))

    @service_method(
        path="coterie.tensor_offer", name="tensor_offer", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @answering
    def tensor_offer(self, context: AuthedServiceContext, plan_hash: str, asked: str) -> str:
        """Begin a comparison through SPU: this node's offer; `asked` is a `Comparison` as JSON."""
        self.own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            return json.dumps(tensors.offer(Comparison.from_dict(json_object(asked))).to_dict())

    @service_method(
        path="coterie.tensor_compare", name="tensor_compare", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @answering
    def tensor_compare(self, context: AuthedServiceContext, plan_hash: str, offers: str) -> str:
        """Do it with all domains' offers; answers the result's name and what is proven."""
        self.own_plan(context, plan_hash)
        parsed = [Offer.from_dict(offer) for offer in json_list(offers)]
        with self.participation.tensors(plan_hash) as tensors:
            name = tensors.compare(parsed)
            return json.dumps({"name": name, "proven": tensors.tensor(name).proven.to_json()})

    @service_method(path="coterie.tensor_drop", name="tensor_drop", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def tensor_drop(self, context: AuthedServiceContext, plan_hash: str, names: str) -> str:
        """Forget tensors."""
        self.own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            tensors.drop([str(name) for name in json_list(names)])
        return "dropped"

"""The stages of a corpus: from landed files to token shards."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from forge_pipeline.lineage.code import code_version
from forge_pipeline.lineage.recipes import CorpusRecipe
from forge_pipeline.lineage.stage import Input, Scope, Stage, StageName, StageRun
from forge_pipeline.reporting import Outcome


def corpus_stages(owner: str, recipe: CorpusRecipe) -> list[Stage]:
    """The stages of the corpus ``owner``, each after its inputs."""

    def same(stage: str) -> Input:
        return Input(stage, StageName(owner, stage), Scope.SAME_BATCH)

    def earlier(stage: str) -> Input:
        return Input("earlier", StageName(owner, stage), Scope.EARLIER_BATCHES)

    def extract(run: StageRun) -> Outcome:
        from forge_pipeline.corpus.extraction import extract_documents

        return extract_documents(recipe.extraction, run.one("landing_files"), run.output, run.progress)

    def curate(run: StageRun) -> Outcome:
        from forge_pipeline.corpus.curation import curate_documents

        return curate_documents(recipe.curation, run.one("documents"), run.output, run.progress)

    def deduplicate(run: StageRun) -> Outcome:
        from forge_pipeline.corpus.deduplication import deduplicate

        return deduplicate(
            recipe.deduplication, run.one("curated_documents"), run.many("earlier"), run.output, run.progress
        )

    def split(run: StageRun) -> Outcome:
        from forge_pipeline.corpus.splitting import split_documents

        return split_documents(
            recipe.splitting, run.one("unique_documents"), run.many("earlier"), run.output, run.progress
        )

    def train_tokenizer(run: StageRun) -> Outcome:
        from forge_pipeline.tokens.tokenizer import train_tokenizer

        return train_tokenizer(recipe.tokenizer, run.many("training_documents"), run.output, run.progress)

    def write_shards(run: StageRun) -> Outcome:
        from forge_pipeline.tokens.shards import write_shards

        return write_shards(
            recipe.shards, run.one("training_documents"), run.one("tokenizer"), run.output, run.progress
        )

    def take_inventory(run: StageRun) -> Outcome:
        from forge_pipeline.corpus.inventory import data_inventory

        return data_inventory(
            recipe.inventory,
            run.many("landing_files"),
            run.many("documents"),
            run.many("curated_documents"),
            run.many("unique_documents"),
            run.many("training_documents"),
            run.output,
            run.progress,
        )

    def stage(name: str, module: str, settings: BaseModel, **rest: Any) -> Stage:
        return Stage(
            name=StageName(owner, name),
            parameters=settings.model_dump(mode="json"),
            code_version=code_version(module),
            **rest,
        )

    return [
        Stage(
            name=StageName(owner, "landing_files"),
            group="corpus",
            description="What lies in the sources, in batches: each file with size, digest, licence and owner.",
            kinds=("file",),
            inputs=(),
            parameters={},
            code_version=code_version("corpus.landing"),
            function=None,
            batched=True,
        ),
        stage(
            "documents",
            "corpus.extraction",
            recipe.extraction,
            group="corpus",
            description="The text of every file, or a quarantine row that says why there is none.",
            kinds=("parquet",),
            inputs=(same("landing_files"),),
            function=extract,
            batched=True,
            partitioned=True,
        ),
        stage(
            "curated_documents",
            "corpus.curation",
            recipe.curation,
            group="corpus",
            description="Repaired, judged and redacted text; every drop and redaction is a row with its reason.",
            kinds=("parquet",),
            inputs=(same("documents"),),
            function=curate,
            batched=True,
            partitioned=True,
        ),
        stage(
            "unique_documents",
            "corpus.deduplication",
            recipe.deduplication,
            group="corpus",
            description="First seen of each cluster of exact and near duplicates (MinHash), clusters kept.",
            kinds=("parquet", "datasketch"),
            inputs=(same("curated_documents"), earlier("unique_documents")),
            function=deduplicate,
            batched=True,
        ),
        stage(
            "training_documents",
            "corpus.splitting",
            recipe.splitting,
            group="corpus",
            description="Train, validation and test by content hash, evaluation items taken out of training text.",
            kinds=("parquet",),
            inputs=(same("unique_documents"), earlier("training_documents")),
            checks=("has_train_documents", "has_validation_documents", "has_test_documents"),
            function=split,
            batched=True,
        ),
        stage(
            "tokenizer",
            "tokens.tokenizer",
            recipe.tokenizer,
            group="tokens",
            description="Byte-level BPE trained on the founding batch, with the chat template.",
            kinds=("tokenizers",),
            inputs=(Input("training_documents", StageName(owner, "training_documents"), Scope.FIRST_BATCH),),
            checks=("vocabulary_is_full",),
            function=train_tokenizer,
        ),
        stage(
            "token_shards",
            "tokens.shards",
            recipe.shards,
            group="tokens",
            description="Token arrays, written once, and the index from document to shard, offset and length.",
            kinds=("numpy", "parquet"),
            inputs=(same("training_documents"), Input("tokenizer", StageName(owner, "tokenizer"))),
            checks=("ids_verified",),
            function=write_shards,
            batched=True,
        ),
        stage(
            "data_inventory",
            "corpus.inventory",
            recipe.inventory,
            group="governance",
            description="Volume by source, format, language and licence, and what was dropped at each step.",
            kinds=("parquet",),
            inputs=tuple(
                Input(name, StageName(owner, name), Scope.ALL_BATCHES)
                for name in (
                    "landing_files",
                    "documents",
                    "curated_documents",
                    "unique_documents",
                    "training_documents",
                )
            ),
            function=take_inventory,
        ),
    ]

"""Two gold versions of the assistant with registered models, promoted one after the other."""

from dataclasses import replace

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.models.tracked import empty_run

V1, V2 = "dpo_gold_v1", "dpo_gold_v2"


def promote_two_versions(stores: Stores, share: float = 1.0) -> None:
    """Cut, register and promote both; the second one gets `share` of the users."""
    lake, versions, registry = stores.lake("assistant"), stores.versions("assistant"), stores.registry("assistant")
    champion = None
    for number, version in enumerate((V1, V2)):
        write_gold_days(lake, {day(number): 3})
        cut_pair_version(lake, versions, version, replace(APPLICATION.resolution, holdout_share=0.0), "1")
        folder = versions.folder(version)
        adapter = folder.training / "adapter"
        (adapter / "more").mkdir(parents=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "more" / "adapter_model.safetensors").write_text(version)
        (folder.training / "training.json").write_text("{}")
        decided = Promotion(version=version, promoted=True, sentence="Better.", champion_before=champion, checks=[])
        record_promotion(folder.promotion, decided)
        registry.register_adapter(version, empty_run(registry, version), adapter, "a" * 64)
        registry.promote(version, champion, share=1.0 if champion is None else share)
        champion = version

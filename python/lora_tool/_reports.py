"""The reports of the verbs. Made from docs/schema by a test; not to be edited."""

from typing import Any, Dict, List, Optional, TypedDict, Union


CheckReportProgramsAlways = TypedDict("CheckReportProgramsAlways", {
    "program": str,
    "version": str,
    "answer": str,
    "verdict": str,
    "modules": List[int],
    "needs": List[str],
})
CheckReportProgramsSometimes = TypedDict("CheckReportProgramsSometimes", {
    "fix": str,
}, total=False)
class CheckReportPrograms(CheckReportProgramsAlways, CheckReportProgramsSometimes):
    pass


CheckReportFindingsPlacesAlways = TypedDict("CheckReportFindingsPlacesAlways", {
    "name": str,
})
CheckReportFindingsPlacesSometimes = TypedDict("CheckReportFindingsPlacesSometimes", {
    "factor": float,
}, total=False)
class CheckReportFindingsPlaces(CheckReportFindingsPlacesAlways, CheckReportFindingsPlacesSometimes):
    pass


CheckReportFindingsAlways = TypedDict("CheckReportFindingsAlways", {
    "program": str,
    "rule": str,
    "severity": str,
    "effect": str,
    "says": str,
    "places": List[CheckReportFindingsPlaces],
})
CheckReportFindingsSometimes = TypedDict("CheckReportFindingsSometimes", {
    "fix": str,
    "source": str,
}, total=False)
class CheckReportFindings(CheckReportFindingsAlways, CheckReportFindingsSometimes):
    pass


CheckReportAlways = TypedDict("CheckReportAlways", {
    "tool": str,
    "version": str,
    "command": str,
    "adapter": str,
    "convention": str,
    "ok": bool,
    "answer": str,
    "programs": List[CheckReportPrograms],
    "findings": List[CheckReportFindings],
})
CheckReportSometimes = TypedDict("CheckReportSometimes", {
    "against": str,
}, total=False)
class CheckReport(CheckReportAlways, CheckReportSometimes):
    pass


CleanReport = TypedDict("CleanReport", {
    "tool": str,
    "version": str,
    "command": str,
    "dry_run": bool,
    "removed": List[Any],
    "alive": List[Any],
    "unknown": List[Any],
    "kept": List[Any],
})


CombineReportInputs = TypedDict("CombineReportInputs", {
    "path": str,
    "weight": float,
    "spill": Optional[float],
})


CombineReportSpills = TypedDict("CombineReportSpills", {
    "a": int,
    "b": int,
    "on_a": float,
    "on_b": float,
})


CombineReportModules = TypedDict("CombineReportModules", {
    "name": str,
    "rank_before": int,
    "rank": int,
    "energy_kept": float,
    "relative_error": float,
})


CombineReportChosen = TypedDict("CombineReportChosen", {
    "text": str,
    "rule": str,
    "method": str,
    "factor": float,
})


CombineReportAlways = TypedDict("CombineReportAlways", {
    "tool": str,
    "version": str,
    "command": str,
    "dry_run": bool,
    "output": str,
    "method": str,
    "space": Optional[str],
    "rank": str,
    "convention": str,
    "energy_kept": float,
    "relative_error": float,
    "distance_from_sum": float,
    "inputs": List[CombineReportInputs],
    "spills": List[CombineReportSpills],
    "parameters_before": int,
    "parameters_after": int,
    "bytes": int,
    "stored": List[Any],
    "modules": List[CombineReportModules],
    "warnings": List[Any],
})
CombineReportSometimes = TypedDict("CombineReportSometimes", {
    "chosen": CombineReportChosen,
}, total=False)
class CombineReport(CombineReportAlways, CombineReportSometimes):
    pass


CommitReportAdapters = TypedDict("CommitReportAdapters", {
    "path": str,
    "weight": float,
    "convention": str,
    "total": int,
    "applied": int,
    "left_out": int,
})


CommitReportFiles = TypedDict("CommitReportFiles", {
    "name": str,
    "tensors": int,
    "bytes": int,
})


CommitReportEffective = TypedDict("CommitReportEffective", {
    "cosine": float,
    "norm_ratio": float,
    "unchanged": float,
    "untouched": float,
})


CommitReportTensors = TypedDict("CommitReportTensors", {
    "name": str,
    "cosine": float,
    "norm_ratio": float,
    "unchanged": float,
    "untouched": float,
})


CommitReport = TypedDict("CommitReport", {
    "tool": str,
    "version": str,
    "command": str,
    "dry_run": bool,
    "output": str,
    "base": str,
    "adapters": List[CommitReportAdapters],
    "modules": int,
    "modules_applied": int,
    "tensors_changed": int,
    "tensors_converted": int,
    "tensors_copied": int,
    "shards": int,
    "files": List[CommitReportFiles],
    "side_files": List[str],
    "shards_reused": int,
    "bytes": int,
    "requantised": None,
    "survival": List[Any],
    "dequantised": None,
    "effective": CommitReportEffective,
    "tensors": List[CommitReportTensors],
    "not_carried": List[Any],
    "unmatched": List[Any],
    "verification": None,
    "receipt_bytes": None,
    "warnings": List[Any],
})


CompareReportAdapters = TypedDict("CompareReportAdapters", {
    "path": str,
    "weight": float,
    "modules": int,
    "norm": float,
    "spill": float,
})


CompareReportPairsModules = TypedDict("CompareReportPairsModules", {
    "name": str,
    "cosine": float,
    "output_overlap": float,
    "input_overlap": float,
    "sign_conflict": float,
    "norm_ratio": float,
})


CompareReportPairs = TypedDict("CompareReportPairs", {
    "a": int,
    "b": int,
    "shared_modules": int,
    "cosine": float,
    "output_overlap": float,
    "input_overlap": float,
    "sign_conflict": float,
    "norm_ratio": float,
    "modules": List[CompareReportPairsModules],
})


CompareReportClusters = TypedDict("CompareReportClusters", {
    "adapters": List[int],
    "least_cosine": float,
})


CompareReportSpills = TypedDict("CompareReportSpills", {
    "a": int,
    "b": int,
    "on_a": float,
    "on_b": float,
})


CompareReportAdvice = TypedDict("CompareReportAdvice", {
    "text": str,
    "rule": str,
    "method": str,
    "factor": float,
})


CompareReport = TypedDict("CompareReport", {
    "tool": str,
    "version": str,
    "command": str,
    "adapters": List[CompareReportAdapters],
    "pairs": List[CompareReportPairs],
    "by_interest": List[int],
    "clusters": List[CompareReportClusters],
    "spills": List[CompareReportSpills],
    "spill": float,
    "advice": CompareReportAdvice,
})


ConvertReportModules = TypedDict("ConvertReportModules", {
    "from": List[str],
    "to": str,
    "folded": float,
    "relative_error": float,
})


ConvertReportAlways = TypedDict("ConvertReportAlways", {
    "tool": str,
    "version": str,
    "command": str,
    "dry_run": bool,
    "output": str,
    "from": str,
    "to": str,
    "modules": List[ConvertReportModules],
    "max_relative_error": Optional[float],
    "kept_relative_error": float,
    "lost": List[Any],
    "bytes": int,
})
ConvertReportSometimes = TypedDict("ConvertReportSometimes", {
    "program": str,
    "needs": List[str],
}, total=False)
class ConvertReport(ConvertReportAlways, ConvertReportSometimes):
    pass


DiffReportDifferent = TypedDict("DiffReportDifferent", {
    "name": str,
    "what": None,
    "relative": float,
    "largest": float,
    "elements": Optional[int],
})


DiffReport = TypedDict("DiffReport", {
    "tool": str,
    "version": str,
    "command": str,
    "compared": str,
    "same": bool,
    "equal": int,
    "only_a": List[str],
    "only_b": List[Any],
    "different": List[DiffReportDifferent],
    "relative": float,
})


ExploreReportChoices = TypedDict("ExploreReportChoices", {
    "rank": str,
    "lowest": int,
    "highest": int,
    "energy_kept": float,
    "relative_error": float,
    "parameters": int,
    "bytes": int,
    "max_lora_rank": int,
})


ExploreReport = TypedDict("ExploreReport", {
    "tool": str,
    "version": str,
    "command": str,
    "adapter": str,
    "choices": List[ExploreReportChoices],
})


ExtractReportModules = TypedDict("ExtractReportModules", {
    "name": str,
    "base_tensor": str,
    "rank": int,
    "norm": float,
    "energy_kept": float,
    "relative_error": float,
    "gap": Optional[float],
    "passes": int,
})


ExtractReport = TypedDict("ExtractReport", {
    "tool": str,
    "version": str,
    "command": str,
    "dry_run": bool,
    "output": str,
    "rank": str,
    "convention": str,
    "tensors": int,
    "equal": int,
    "energy_kept": float,
    "relative_error": float,
    "modules": List[ExtractReportModules],
    "whole": List[Any],
    "left_out": List[Any],
    "parameters": int,
    "bytes": int,
    "warnings": List[Any],
})


InspectReportItemsModulesAlways = TypedDict("InspectReportItemsModulesAlways", {
    "name": str,
    "family": str,
    "kind": str,
    "rank": int,
    "alpha": float,
    "scale": float,
    "scale_source": str,
    "in": int,
    "out": int,
    "dtype": str,
})
InspectReportItemsModulesSometimes = TypedDict("InspectReportItemsModulesSometimes", {
    "norm": float,
    "singular_values": List[float],
    "effective_rank": float,
    "stable_rank": float,
    "rank_90": int,
    "rank_95": int,
    "rank_99": int,
    "base_tensor": str,
}, total=False)
class InspectReportItemsModules(InspectReportItemsModulesAlways, InspectReportItemsModulesSometimes):
    pass


InspectReportItemsShards = TypedDict("InspectReportItemsShards", {
    "file": str,
    "tensors": int,
    "bytes": int,
})


InspectReportItemsAlways = TypedDict("InspectReportItemsAlways", {
    "path": str,
    "kind": str,
    "convention": Optional[str],
    "base_model": Optional[str],
    "tensors": int,
    "parameters": int,
    "bytes": int,
    "dtypes": Dict[str, int],
    "ranks": Optional[Dict[str, int]],
    "modules": Optional[List[InspectReportItemsModules]],
    "metadata": Dict[str, str],
    "warnings": List[Any],
})
InspectReportItemsSometimes = TypedDict("InspectReportItemsSometimes", {
    "replacements": List[Any],
    "share_of_base": float,
    "shards": List[InspectReportItemsShards],
    "model": str,
    "parts": Dict[str, int],
    "layers": int,
}, total=False)
class InspectReportItems(InspectReportItemsAlways, InspectReportItemsSometimes):
    pass


InspectReportAdaptersScale = TypedDict("InspectReportAdaptersScale", {
    "least": float,
    "most": float,
    "rslora": bool,
})


InspectReportAdapters = TypedDict("InspectReportAdapters", {
    "name": str,
    "path": str,
    "model": str,
    "base_model": str,
    "convention": str,
    "type": List[str],
    "ranks": List[int],
    "scale": InspectReportAdaptersScale,
    "bytes": int,
    "parameters": int,
    "modules": int,
    "parts": Dict[str, int],
    "dtypes": List[str],
    "date": str,
    "faults": int,
})


InspectReportUnread = TypedDict("InspectReportUnread", {
    "path": str,
    "error": str,
    "hint": str,
})


InspectReportAlways = TypedDict("InspectReportAlways", {
    "tool": str,
    "version": str,
    "command": str,
})
InspectReportSometimes = TypedDict("InspectReportSometimes", {
    "items": List[InspectReportItems],
    "adapters": List[InspectReportAdapters],
    "left_out": int,
    "unread": List[InspectReportUnread],
    "warnings": List[Any],
}, total=False)
class InspectReport(InspectReportAlways, InspectReportSometimes):
    pass


ListReportAdaptersScale = TypedDict("ListReportAdaptersScale", {
    "least": float,
    "most": float,
    "rslora": bool,
})


ListReportAdaptersAlways = TypedDict("ListReportAdaptersAlways", {
    "name": str,
    "path": str,
    "model": Optional[str],
    "base_model": Optional[str],
    "convention": str,
    "type": List[str],
    "ranks": List[int],
    "scale": ListReportAdaptersScale,
    "bytes": int,
    "parameters": int,
    "modules": int,
    "parts": Dict[str, int],
    "dtypes": List[str],
    "date": str,
    "faults": int,
})
ListReportAdaptersSometimes = TypedDict("ListReportAdaptersSometimes", {
    "title": str,
}, total=False)
class ListReportAdapters(ListReportAdaptersAlways, ListReportAdaptersSometimes):
    pass


ListReportUnread = TypedDict("ListReportUnread", {
    "path": str,
    "error": str,
    "hint": str,
})


ListReport = TypedDict("ListReport", {
    "tool": str,
    "version": str,
    "command": str,
    "adapters": List[ListReportAdapters],
    "left_out": int,
    "unread": List[ListReportUnread],
    "warnings": List[Any],
})


MergeReportAdaptersAlways = TypedDict("MergeReportAdaptersAlways", {
    "path": str,
    "weight": float,
    "convention": str,
    "total": int,
    "applied": int,
    "left_out": int,
})
MergeReportAdaptersSometimes = TypedDict("MergeReportAdaptersSometimes", {
    "by_module": bool,
}, total=False)
class MergeReportAdapters(MergeReportAdaptersAlways, MergeReportAdaptersSometimes):
    pass


MergeReportFiles = TypedDict("MergeReportFiles", {
    "name": str,
    "tensors": int,
    "bytes": int,
})


MergeReportEffective = TypedDict("MergeReportEffective", {
    "cosine": float,
    "norm_ratio": float,
    "unchanged": float,
    "untouched": float,
})


MergeReportTensors = TypedDict("MergeReportTensors", {
    "name": str,
    "cosine": float,
    "norm_ratio": float,
    "unchanged": float,
    "untouched": float,
})


MergeReportVerification = TypedDict("MergeReportVerification", {
    "ok": bool,
    "files": int,
    "copied": int,
    "recomputed": int,
    "same_code": int,
    "rows": int,
    "rows_compared": int,
    "rows_recomputed": int,
    "elements": int,
    "largest_error": float,
    "allowed_error": float,
    "fault_count": int,
    "faults": List[Any],
    "others": List[Any],
    "warnings": List[Any],
})


MergeReportChosen = TypedDict("MergeReportChosen", {
    "text": str,
    "rule": str,
    "method": str,
    "factor": float,
})


MergeReportAlways = TypedDict("MergeReportAlways", {
    "tool": str,
    "version": str,
    "command": str,
    "dry_run": bool,
    "output": str,
    "base": str,
    "adapters": List[MergeReportAdapters],
    "modules": int,
    "modules_applied": int,
    "tensors_changed": int,
    "tensors_converted": int,
    "tensors_copied": int,
    "shards": int,
    "files": List[MergeReportFiles],
    "side_files": List[str],
    "shards_reused": int,
    "bytes": int,
    "requantised": None,
    "survival": List[Any],
    "dequantised": None,
    "effective": Optional[MergeReportEffective],
    "tensors": List[MergeReportTensors],
    "not_carried": List[Any],
    "unmatched": List[Any],
    "verification": Optional[MergeReportVerification],
    "receipt_bytes": Optional[int],
    "warnings": List[Any],
})
MergeReportSometimes = TypedDict("MergeReportSometimes", {
    "chosen": MergeReportChosen,
}, total=False)
class MergeReport(MergeReportAlways, MergeReportSometimes):
    pass


UndoReport = TypedDict("UndoReport", {
    "tool": str,
    "version": str,
    "command": str,
    "output": str,
    "files": int,
    "bytes": int,
    "side_files": int,
    "missing": List[Any],
    "receipt_bytes": int,
    "warnings": List[Any],
})


VerifyReportFaultsAlways = TypedDict("VerifyReportFaultsAlways", {
    "what": str,
})
VerifyReportFaultsSometimes = TypedDict("VerifyReportFaultsSometimes", {
    "file": str,
    "tensor": str,
}, total=False)
class VerifyReportFaults(VerifyReportFaultsAlways, VerifyReportFaultsSometimes):
    pass


VerifyReport = TypedDict("VerifyReport", {
    "tool": str,
    "version": str,
    "command": str,
    "ok": bool,
    "files": int,
    "copied": int,
    "recomputed": int,
    "same_code": int,
    "rows": int,
    "rows_compared": int,
    "rows_recomputed": int,
    "elements": int,
    "largest_error": float,
    "allowed_error": float,
    "fault_count": int,
    "faults": List[VerifyReportFaults],
    "others": List[Any],
    "warnings": List[Any],
})


WorkReport = TypedDict("WorkReport", {
    "tool": str,
    "version": str,
    "command": str,
    "plan": str,
    "part": str,
    "parts": List[str],
    "made": int,
    "reused": int,
    "failed": List[Any],
    "bytes": int,
    "place": str,
})

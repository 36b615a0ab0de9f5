"""The result as Markdown and as a figure."""

from collections.abc import Mapping
from typing import Any

from harness.contrasts import contrast_lines
from harness.plots import COLORS
from matplotlib.figure import Figure

from occ_gradients.contrasts import CHANGE, PRIMARY_PROXY, PROXIES
from openrlhf_mtp.analysis import style


def table(result: Mapping[str, Any]) -> str:
    """Proxies, gains, theory; a line a checkpoint."""
    found, count = result["proxies"], len(result["checkpoints"])
    halves, stage = found["halves"]["value"], result["second_stage"]
    lines = [
        "# Does OCC's proxy follow the true gradients, and does any coefficient gain?",
        "",
        f"{count} checkpoints, {result['date']}. Is the proxy one: **{found['verdict']}**. ρ of even and odd parts "
        f"correlate at {halves:.2f}. Second stage: {'due' if stage['due'] else 'not due'}, {stage['reason']}.",
        "",
        "| proxy | rank correlation with ρ | p | base policies | without the stage's mean | same sign | mean |",
        "|---" * 7 + "|",
        *(_proxy_line(name, found[name]) for name in PROXIES),
        "",
        *contrast_lines(result["gains"], {CHANGE.name: CHANGE}),
        "",
        "Pairs are paths here, each the mean over its checkpoints.",
        "",
        *_theory_lines(result["theory"]),
        "",
        "| checkpoint | ρ | its error | `occ` | `released` | cosine | reward |",
        "|---" * 7 + "|",
        *(_checkpoint_line(name, record) for name, record in result["checkpoints"].items()),
    ]
    if result["missing"]:
        lines += ["", f"Not measured: {', '.join(result['missing'])}."]
    return "\n".join(lines) + "\n"


def _proxy_line(name: str, found: Mapping[str, Any]) -> str:
    within = ", ".join(f"{each['value']:.2f}" for each in found["within_policy"].values())
    primary = "**primary** " if name == PRIMARY_PROXY else ""
    return (
        f"| {primary}`{name}` | {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f}) | {found['p']:.3f} | "
        f"{within} | {found['without_stage']['value']:.2f} | {found['same_sign']:.0%} | {found['mean']:.4g} |"
    )


def _theory_lines(theory: Mapping[str, Any]) -> list[str]:
    if not theory:
        return []
    lines = ["| λ | " + " | ".join(f"ΔJ, {kind} | predicted" for kind in theory["change"]) + " |"]
    lines.append("|---" * (1 + 2 * len(theory["change"])) + "|")
    for name in next(iter(theory["change"].values())):
        cells = [
            f"{theory[of][kind][name]:+.5f}" for kind in theory["change"] for of in ("change", "predicted")
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"ρ of the means {theory['ratio']:.4g}; best constant λ of the step `gradient` {theory['best_constant']:.3g}; "
        f"λ₊ by both {theory['scale']:.3g}; ‖g_MTP‖ over ‖g_RL‖ {theory['mtp_over_rl_norm']:.3g}.",
    ]
    return lines


def _checkpoint_line(name: str, record: Mapping[str, Any]) -> str:
    measured, proxies = record["alignment"], record["proxies"]
    square = measured["mtp_norm"] * measured["rl_norm"]
    cosine = (
        f"{measured['product'] / square**0.5:.2f}"
        if min(measured["mtp_norm"], measured["rl_norm"]) > 0.0
        else "–"
    )
    return (
        f"| {name} | {measured['ratio']:.3g} | {measured['ratio_error']:.2g} | {proxies['occ']:.3g} | "
        f"{proxies['released']:.3g} | {cosine} | {record['reward']:.2f} |"
    )


def figure(result: Mapping[str, Any]) -> Figure:
    """ρ against both forms of the proxy, and the change of the expected reward by coefficient."""
    drawn, axes = style.panels(3)
    records = list(result["checkpoints"].values())
    for axis, name in zip(axes, ("occ", "released"), strict=False):
        for policy in sorted({record["policy"] for record in records}):
            own = [record for record in records if record["policy"] == policy]
            axis.errorbar(
                [record["proxies"][name] for record in own],
                [record["alignment"]["ratio"] for record in own],
                yerr=[record["alignment"]["ratio_error"] for record in own],
                fmt="o",
                markersize=3,
                linewidth=0.8,
                color=COLORS[policy % len(COLORS)],
                label=f"base policy {policy}",
            )
        style.label(axis, f"true ratio ρ by proxy `{name}`", "ρ", x=name)
    for number, (kind, changes) in enumerate(result["theory"]["change"].items()):
        for of, dash in ((changes, "-"), (result["theory"]["predicted"][kind], ":")):
            label = kind if dash == "-" else f"{kind}, predicted"
            axes[2].plot(
                range(len(of)),
                list(of.values()),
                dash,
                marker="o",
                markersize=3,
                color=COLORS[number],
                label=label,
            )
    names = list(next(iter(result["theory"]["change"].values())))
    style.label(axes[2], "change of the expected reward", "reward", x="λ")
    axes[2].set_xticks(range(len(names)), names)
    for axis in (axes[0], axes[2]):
        style.legend(axis)
    return drawn

"""Shell completion of settings: the names of OpenRLHF's flags and of the mtp section, each up to its `=`."""

from __future__ import annotations


def setting_names(incomplete: str) -> list[str]:
    """Names that begin so, for `typer`; nothing once the name is written."""
    from openrlhf_mtp.config.settings.section import mtp_names
    from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

    return [f"{name}=" for name in (*flag_specs(), *mtp_names()) if name.startswith(incomplete)]

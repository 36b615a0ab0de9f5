{{/* What runs: the script of the Ray job, and its parts that other objects need too. */}}

{{/* The job's overrides as shell words, the chart's own last. OpenRLHF logs to Weights & Biases only where it is given a key;
wandb itself takes the one in WANDB_API_KEY first, so that the secret is on no command line and in no run folder. */}}
{{- define "mtp.overrideWords" -}}
{{- $own := (include "mtp.counts" . | fromJson).overrides -}}
{{- if .Values.secrets.wandb.name -}}{{- $own = append $own "logger.wandb.key=in-WANDB_API_KEY" -}}{{- end -}}
{{- range concat .Values.job.overrides $own }} {{ include "mtp.shellWord" . }}{{ end -}}
{{- end -}}

{{/* The preflight's arguments beside the job and the run folder. */}}
{{- define "mtp.preflightWords" -}}
{{- $counts := include "mtp.counts" . | fromJson -}}
--trainer {{ $counts.trainer.replicas }}x{{ $counts.trainer.gpus }} --rollout {{ $counts.rollout.replicas }}x{{ $counts.rollout.gpus }} --wait-s {{ .Values.job.startupDeadlineSeconds }} --broadcast-s {{ .Values.preflight.broadcastTimeoutSeconds }}{{ if include "mtp.shared" (dict "root" . "name" "checkpoints") }} --shared{{ end }}{{ if eq .Values.accelerator.type "nvidia" }} --nvidia{{ end }}{{ if .Values.network.rdma.enabled }} --rdma{{ end }}
{{- end -}}

{{- define "mtp.runScript" -}}
#!/usr/bin/env bash
# The run: what the Ray job executes, on the head pod. A retry executes it again and continues from the last checkpoint.
set -euo pipefail
cd /workspace
export JOB=/etc/openrlhf-mtp/job.yaml RUN={{ include "mtp.shellWord" (include "mtp.runFolder" .) }}
# A run that lives keeps this file fresh. Pods that are told to stop wait for a checkpoint only then, and another run in the
# same folder waits until it is gone: an upgrade begins while the pods before it are still saving.
RUNNING="$RUN/.running" STEPPING="$RUN/.stepping" ME={{ include "mtp.run" . }}
# Whether a failed attempt is followed by another is decided in the run folder, at its end; its exit code says so.
attempt() { python -m openrlhf_mtp.cluster.attempts "$@" {{ include "mtp.attemptWords" . }}; }
background=()
finish() {
  local code=$? verdict=0
  trap : TERM # of a job that ends itself: what follows is still to be done
  { kill -KILL "${background[@]}"; wait "${background[@]}"; } 2>/dev/null || true
  attempt end --code "$code" || verdict=$?
  ((code == 0 || verdict == 0)) || code=$verdict
  [[ "$(cat "$RUNNING" 2>/dev/null)" != "$ME" ]] || rm -f "$RUNNING" "$STEPPING"
  exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM
mkdir -p "$RUN"
age() { echo $(($(date +%s) - $(stat -c %Y "$RUNNING" 2>/dev/null || echo 0))); }
while [[ -e "$RUNNING" && "$(cat "$RUNNING")" != "$ME" && $(age) -lt 60 ]]; do
  echo "waiting for $(cat "$RUNNING"), which still runs in $RUN"
  sleep 2
done
echo "$ME" > "$RUNNING"
rm -f "$STEPPING" # of an attempt that was killed; the controller creates it again
# Ray ends a job by SIGTERM to every process below this one. The driver then waits for a checkpoint, and as long as it does
# the run lives: this shell ends after it, and the heartbeat only with this shell.
heartbeat() { trap '' TERM; while sleep 10; do touch -c "$RUNNING"; done; }
heartbeat >/dev/null 2>&1 &
background+=($!)
summary() { echo "summary: $(tr -d '\n' < "$RUN/summary.json")"; }
begun=0
attempt begin || begun=$?
((begun != 5)) || { summary; exit; } # it has succeeded before
((begun == 0)) || exit "$begun"
{{- if eq .Values.backend "rayjob" }}
python -m openrlhf_mtp.cluster.operator_watch "$RUN" &
background+=($!)
{{- end }}
{{- if .Values.preflight.enabled }}
python -m openrlhf_mtp.cluster.preflight --run "$RUN" {{ include "mtp.preflightWords" . }}
{{- end }}
{{- if .Values.job.prepare }}
# A step leaves a stamp when it has succeeded; the stamp's name is the hash of the steps up to it.
prepare() {
  [[ -e "$RUN/.prepared-$1" ]] && { echo "prepared before: $2"; return; }
  echo "+ $2"
  bash -euo pipefail -c "$2"
  touch "$RUN/.prepared-$1"
}
{{- $so := "" }}
{{- range .Values.job.prepare }}
{{- $so = printf "%s%s" $so . | sha256sum }}
prepare {{ trunc 8 $so }} {{ include "mtp.shellWord" . }}
{{- end }}
{{- end }}
{{- if .Values.monitoring.exporter }}
python -m openrlhf_mtp.cluster.exporter "$RUN" --port 9400 &
background+=($!)
{{- end }}
openrlhf-mtp train "$JOB" --out "$RUN" --resume{{ include "mtp.overrideWords" . }}
summary
{{- end -}}

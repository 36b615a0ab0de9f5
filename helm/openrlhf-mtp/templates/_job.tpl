{{/* What the chart reads from the job file: the settings that decide how many GPUs each role has.
The rules are those of openrlhf_mtp/config/roles.py; a test compares both for every example. */}}

{{/* Nested sections to dotted names, into a dictionary. Arguments: tree, prefix, into. */}}
{{- define "mtp.flatten" -}}
{{- range $key, $value := .tree -}}
{{- if kindIs "map" $value -}}
{{- include "mtp.flatten" (dict "tree" $value "prefix" (printf "%s%s." $.prefix $key) "into" $.into) -}}
{{- else -}}
{{- $_ := set $.into (printf "%s%s" $.prefix $key) $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The job's settings as JSON, dotted name to value, overrides applied. */}}
{{- define "mtp.settings" -}}
{{- $settings := dict -}}
{{- include "mtp.flatten" (dict "tree" (fromYaml .Values.job.config) "prefix" "" "into" $settings) -}}
{{- range .Values.job.overrides -}}
{{- $parts := splitn "=" 2 . -}}
{{- $scalar := fromYaml (printf "value: %s" $parts._1) -}}
{{- $_ := set $settings $parts._0 (ternary (get $scalar "value") $parts._1 (hasKey $scalar "value")) -}}
{{- end -}}
{{- $settings | toJson -}}
{{- end -}}

{{/* A whole number. Arguments: settings, name, default. */}}
{{- define "mtp.number" -}}
{{- $value := get .settings .name -}}
{{- if or (not (hasKey .settings .name)) (kindIs "invalid" $value) -}}
{{- .default -}}
{{- else if not (regexMatch "^[0-9]+$" (toString $value)) -}}
{{- fail (printf "job.config: %s: got %v, expected a whole number" .name $value) -}}
{{- else -}}
{{- toString $value -}}
{{- end -}}
{{- end -}}

{{/* "true" or nothing. Arguments: settings, name. */}}
{{- define "mtp.on" -}}
{{- if eq (toString (get .settings .name)) "true" -}}true{{- end -}}
{{- end -}}

{{/* GPUs of `actor`, `ref`, `critic` or `reward`. Arguments: settings, role. */}}
{{- define "mtp.ranks" -}}
{{- $nodes := include "mtp.number" (dict "settings" .settings "name" (printf "%s.num_nodes" .role) "default" 1) -}}
{{- $gpus := include "mtp.number" (dict "settings" .settings "name" (printf "%s.num_gpus_per_node" .role) "default" 8) -}}
{{- mul (int $nodes) (int $gpus) -}}
{{- end -}}

{{/* Every role of the job as JSON: {roles: [{name, setting, gpus, shares}], engines, tensorParallel, colocatesEngines}. */}}
{{- define "mtp.roles" -}}
{{- $s := include "mtp.settings" . | fromJson -}}
{{- $all := include "mtp.on" (dict "settings" $s "name" "train.colocate_all") -}}
{{- $async := include "mtp.on" (dict "settings" $s "name" "train.async_enable") -}}
{{- $withRef := or $all (include "mtp.on" (dict "settings" $s "name" "train.colocate_actor_ref")) -}}
{{- $colocates := and $all (not $async) -}}
{{- $engines := int (include "mtp.number" (dict "settings" $s "name" "vllm.num_engines" "default" 0)) -}}
{{- $parallel := int (include "mtp.number" (dict "settings" $s "name" "vllm.tensor_parallel_size" "default" 1)) -}}
{{- $roles := list (dict "name" "actor" "setting" "actor" "gpus" (int (include "mtp.ranks" (dict "settings" $s "role" "actor"))) "shares" "") -}}
{{- $klCoef := get $s "algo.kl.init_coef" -}}
{{- if or (kindIs "invalid" $klCoef) (eq (toString $klCoef) "") (gt (float64 $klCoef) 0.0) -}}
{{- $roles = append $roles (dict "name" "reference" "setting" "ref" "gpus" (int (include "mtp.ranks" (dict "settings" $s "role" "ref"))) "shares" (ternary "actor" "" (not (empty $withRef)))) -}}
{{- end -}}
{{- $critic := eq (get $s "algo.advantage.estimator" | default "gae") "gae" -}}
{{- if $critic -}}
{{- $roles = append $roles (dict "name" "critic" "setting" "critic" "gpus" (int (include "mtp.ranks" (dict "settings" $s "role" "critic"))) "shares" (ternary "actor" "" (not (empty $all)))) -}}
{{- end -}}
{{- if not (or (get $s "reward.remote_url") (get $s "train.agent_func_path")) -}}
{{- $withCritic := and $critic (include "mtp.on" (dict "settings" $s "name" "train.colocate_critic_reward")) -}}
{{- $shares := ternary "actor" (ternary "critic" "" (not (empty $withCritic))) (not (empty $all)) -}}
{{- $roles = append $roles (dict "name" "reward model" "setting" "reward" "gpus" (int (include "mtp.ranks" (dict "settings" $s "role" "reward"))) "shares" $shares) -}}
{{- end -}}
{{- dict "roles" $roles "engines" $engines "tensorParallel" $parallel "colocatesEngines" (not (empty $colocates)) | toJson -}}
{{- end -}}

{{/* "4 (actor 4, critic 4)": the trainer's GPUs in words. Argument: the list of roles. */}}
{{- define "mtp.trainerInWords" -}}
{{- $parts := list -}}
{{- range . -}}
{{- if not .shares -}}{{- $parts = append $parts (printf "%s %v" .name .gpus) -}}{{- end -}}
{{- end -}}
{{- join ", " $parts -}}
{{- end -}}

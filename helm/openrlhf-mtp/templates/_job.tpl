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

{{/* A whole number; a problem with it is put into the list of `problems`. Arguments: settings, name, default, least,
problems. */}}
{{- define "mtp.number" -}}
{{- $value := get .settings .name -}}
{{- if or (not (hasKey .settings .name)) (kindIs "invalid" $value) -}}
{{- .default -}}
{{- else if not (and (regexMatch "^[0-9]{1,5}$" (toString $value)) (ge (int $value) (int .least))) -}}
{{- $_ := set .problems "list" (append .problems.list (printf "job.config: %s: got %s, expected a whole number from %d to 99999" .name (include "mtp.shown" $value) (int .least))) -}}
{{- .default -}}
{{- else -}}
{{- toString $value -}}
{{- end -}}
{{- end -}}

{{/* "true" or nothing. Arguments: settings, name. */}}
{{- define "mtp.on" -}}
{{- if eq (toString (get .settings .name)) "true" -}}true{{- end -}}
{{- end -}}

{{/* GPUs of `actor`, `ref`, `critic` or `reward`. Arguments: settings, problems, role. */}}
{{- define "mtp.ranks" -}}
{{- $nodes := include "mtp.number" (merge (dict "name" (printf "%s.num_nodes" .role) "default" 1 "least" 1) .) -}}
{{- $gpus := include "mtp.number" (merge (dict "name" (printf "%s.num_gpus_per_node" .role) "default" 8 "least" 1) .) -}}
{{- mul (int $nodes) (int $gpus) -}}
{{- end -}}

{{/* A role. Arguments: settings, problems, role (as in the settings), name, shares (the role whose GPUs it takes, or nothing). */}}
{{- define "mtp.role" -}}
{{- dict "name" .name "setting" .role "gpus" (int (include "mtp.ranks" .)) "shares" .shares | toJson -}}
{{- end -}}

{{/* Every role of the job as JSON: {roles: [{name, setting, gpus, shares}], engines, tensorParallel, colocatesEngines}.
Arguments: root, problems. */}}
{{- define "mtp.roles" -}}
{{- $s := include "mtp.settings" .root | fromJson -}}
{{- $context := dict "settings" $s "problems" .problems -}}
{{- $all := include "mtp.on" (dict "settings" $s "name" "train.colocate_all") -}}
{{- $async := include "mtp.on" (dict "settings" $s "name" "train.async_enable") -}}
{{- $withRef := or $all (include "mtp.on" (dict "settings" $s "name" "train.colocate_actor_ref")) -}}
{{- $engines := int (include "mtp.number" (merge (dict "name" "vllm.num_engines" "default" 0 "least" 0) $context)) -}}
{{- $parallel := int (include "mtp.number" (merge (dict "name" "vllm.tensor_parallel_size" "default" 1 "least" 1) $context)) -}}
{{- $roles := list (include "mtp.role" (merge (dict "role" "actor" "name" "actor" "shares" "") $context) | fromJson) -}}
{{- $klCoef := get $s "algo.kl.init_coef" -}}
{{- if or (kindIs "invalid" $klCoef) (eq (toString $klCoef) "") (gt (float64 $klCoef) 0.0) -}}
{{- $roles = append $roles (include "mtp.role" (merge (dict "role" "ref" "name" "reference" "shares" (ternary "actor" "" (not (empty $withRef)))) $context) | fromJson) -}}
{{- end -}}
{{- $critic := eq (get $s "algo.advantage.estimator" | default "gae" | toString) "gae" -}}
{{- $pair := and $critic (not (empty (include "mtp.on" (dict "settings" $s "name" "train.colocate_critic_reward")))) -}}
{{- $withAll := ternary "actor" "" (and (not (empty $all)) (not $pair)) -}}
{{- if $critic -}}
{{- $roles = append $roles (include "mtp.role" (merge (dict "role" "critic" "name" "critic" "shares" $withAll) $context) | fromJson) -}}
{{- end -}}
{{- if not (or (get $s "reward.remote_url") (get $s "train.agent_func_path")) -}}
{{- $roles = append $roles (include "mtp.role" (merge (dict "role" "reward" "name" "reward model" "shares" (ternary "critic" $withAll $pair)) $context) | fromJson) -}}
{{- end -}}
{{- dict "roles" $roles "engines" $engines "tensorParallel" $parallel "colocatesEngines" (and (not (empty $all)) (empty $async)) | toJson -}}
{{- end -}}

{{/* "4 (actor 4, critic 4)": the trainer's GPUs in words. Argument: the list of roles. */}}
{{- define "mtp.trainerInWords" -}}
{{- $parts := list -}}
{{- range . -}}
{{- if not .shares -}}{{- $parts = append $parts (printf "%s %v" .name .gpus) -}}{{- end -}}
{{- end -}}
{{- join ", " $parts -}}
{{- end -}}

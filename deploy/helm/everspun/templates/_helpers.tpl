{{- define "everspun.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "everspun.labels" -}}
app.kubernetes.io/name: everspun
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: everspun
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "everspun.selector" -}}
app.kubernetes.io/name: everspun
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- /* Pods of shards. None goes before its slots have moved: where their number is not said, those that there are stay. */ -}}
{{- define "everspun.pods" -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-shard" (include "everspun.name" .)) -}}
{{- $least := max (int .Values.shards.count) (int .Values.shards.initial) (int (dig "spec" "replicas" 0 $there)) -}}
{{- if .Values.shards.pods }}{{ .Values.shards.pods }}{{ else }}{{ $least }}{{ end }}
{{- end }}

{{- /* shards.count of the release before; 0 = there is none, or it cannot be asked. */ -}}
{{- define "everspun.countBefore" -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-shard" (include "everspun.name" .)) -}}
{{- dig "metadata" "annotations" "everspun/shards-count" "0" $there -}}
{{- end }}

{{- define "everspun.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* host:port of every shard, as a TOML list. */ -}}
{{- define "everspun.addresses" -}}
{{- $name := include "everspun.name" . -}}
{{- $found := list -}}
{{- range $i := until (int (include "everspun.pods" .)) -}}
{{- $found = append $found (printf "\"%s-shard-%d.%s-shard:%d\"" $name $i $name (add $.Values.ports.shard $i)) -}}
{{- end -}}
[{{ join ", " $found }}]
{{- end }}

{{- define "everspun.answering" -}}
{{- $name := include "everspun.name" . -}}
{{- $port := int .Values.ports.metrics -}}
{{- $found := list (printf "shard = \"%s-shard-{index}.%s-shard:%d\"" $name $name $port) -}}
{{- range $role, $it := .Values.roles -}}
{{- if $it.replicas -}}
{{- $found = append $found (printf "%s = \"%s-%s-all:%d\"" $role $name $role $port) -}}
{{- end -}}
{{- end -}}
{ {{- join ", " $found -}} }
{{- end }}

{{- define "everspun.ownEnv" -}}
- {name: EVERSPUN_RUN_DIR, value: /var/lib/everspun}
- {name: EVERSPUN_RUN_LOG_FORMAT, value: json}
- {name: EVERSPUN_RUN_METRICS_HOST, value: "0.0.0.0"}
- {name: EVERSPUN_RUN_METRICS_PORT, value: {{ .Values.ports.metrics | quote }}}
- {name: EVERSPUN_RUN_METRICS_PORT_EACH, value: "false"}
- {name: EVERSPUN_RUN_SHARDS, value: {{ .Values.shards.initial | quote }}}
- {name: EVERSPUN_RUN_FRAUD, value: {{ .Values.roles.fraud.replicas | quote }}}
- {name: EVERSPUN_RUN_BREAKER, value: {{ .Values.roles.breaker.replicas | quote }}}
- {name: EVERSPUN_RUN_LABELERS, value: {{ max 1 (int .Values.roles.labeler.replicas) | quote }}}
- {name: EVERSPUN_RUN_LEARNERS, value: {{ max 1 (int .Values.roles.learner.replicas) | quote }}}
- {name: EVERSPUN_RUN_REPLICAS, value: {{ .Values.roles.replica.replicas | quote }}}
- {name: EVERSPUN_RUN_ARCHIVERS, value: {{ .Values.roles.archiver.replicas | quote }}}
- {name: EVERSPUN_GOVERNOR_ENABLED, value: {{ gt (int .Values.roles.governor.replicas) 0 | quote }}}
- {name: EVERSPUN_HOSTS_ANSWERING, value: {{ include "everspun.answering" . | quote }}}
- {name: EVERSPUN_STREAM_STATIC_MEMBERS, value: "false"}
- {name: EVERSPUN_PARAMSERVER_TRANSPORT, value: tcp}
- {name: EVERSPUN_PARAMSERVER_HOST, value: "0.0.0.0"}
- {name: EVERSPUN_PARAMSERVER_PORT, value: {{ .Values.ports.shard | quote }}}
- {name: EVERSPUN_PARAMSERVER_LANE_PORT, value: {{ .Values.ports.lane | quote }}}
- {name: EVERSPUN_PARAMSERVER_ADDRESSES, value: {{ include "everspun.addresses" . | quote }}}
- {name: EVERSPUN_PARAMSERVER_CERT, value: /etc/everspun/shards/tls.crt}
- {name: EVERSPUN_PARAMSERVER_KEY, value: /etc/everspun/shards/tls.key}
- {name: EVERSPUN_PARAMSERVER_CA, value: /etc/everspun/shards/ca.crt}
- {name: EVERSPUN_PARAMSERVER_TOKEN_FILE, value: /etc/everspun/shards/token}
- {name: EVERSPUN_SERVING_HOST, value: "0.0.0.0"}
- {name: EVERSPUN_SERVING_PORT, value: {{ .Values.ports.http | quote }}}
- {name: XDG_CACHE_HOME, value: /var/cache/everspun}
- name: EVERSPUN_HASH_SECRET
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.hash }}, key: secret}}
{{- with .Values.secrets.kafka }}
- name: EVERSPUN_KAFKA_USERNAME
  valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
- name: EVERSPUN_KAFKA_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}
{{- end }}
{{- with .Values.secrets.kafkaCa }}
- {name: EVERSPUN_STREAM_SSL_CAFILE, value: /etc/everspun/kafka/ca.crt}
{{- end }}
{{- end }}

{{- define "everspun.env" -}}
{{ include "everspun.ownEnv" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What a schema cannot say: values that do not go together. */ -}}
{{- define "everspun.check" -}}
{{- $shards := max (int .Values.shards.count) (int .Values.shards.initial) -}}
{{- $pods := int (include "everspun.pods" .) -}}
{{- if lt $pods $shards -}}
{{- fail (printf "shards.pods = %d: fewer than the %d of shards.count and initial; 0 = as many" $pods $shards) -}}
{{- end -}}
{{- $before := int (include "everspun.countBefore" .) -}}
{{- if lt $pods $before -}}
{{- fail (printf "shards.pods = %d: the release before has shards.count = %d; lower the count now, and the pods in the next upgrade" $pods $before) -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and (ne .kind "none") (gt (int .min) (int .max)) -}}
{{- fail (printf "autoscaling.min = %d: more than autoscaling.max = %d" (int .min) (int .max)) -}}
{{- end -}}
{{- if and (eq .kind "keda") (not (trim .prometheus)) -}}
{{- fail "autoscaling.prometheus is empty: with kind keda, the address of Prometheus is meant" -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" .Release.Name) -}}
{{- fail (printf "release name %s: it names services, so a-z, 0-9 and - are allowed, a letter first" .Release.Name) -}}
{{- end -}}
{{- include "everspun.checkResources" (dict "name" "shards" "resources" .Values.shards.resources) -}}
{{- range $name, $it := .Values.roles -}}
{{- include "everspun.checkResources" (dict "name" (printf "roles.%s" $name) "resources" $it.resources) -}}
{{- end -}}
{{- if not (trim .Values.config) -}}
{{- fail "config is empty: the text of everspun.toml is meant" -}}
{{- end -}}
{{- with regexFind "(?m)^[^#\\n]*\\b(tls_(cert|key)_file\\s*=\\s*[\"'][^\"']|grpc_port\\s*=\\s*[1-9])" .Values.config -}}
{{- fail (printf "config: serving.%s: probes and services of the chart know replicas by plain HTTP alone" (regexFind "(tls_(cert|key)_file|grpc_port)" .)) -}}
{{- end -}}
{{- $taken := dict -}}
{{- range $name, $first := .Values.ports -}}
{{- $count := has $name (list "shard" "lane") | ternary $pods 1 -}}
{{- range $i := until $count -}}
{{- $port := add $first $i -}}
{{- if gt $port 65535 -}}
{{- fail (printf "ports.%s = %d: with %d pods it ends beyond 65535" $name (int $first) $pods) -}}
{{- end -}}
{{- with get $taken (toString $port) -}}
{{- fail (printf "ports.%s and ports.%s: both take %d; shard and lane take one for each pod" . $name $port) -}}
{{- end -}}
{{- $_ := set $taken (toString $port) $name -}}
{{- end -}}
{{- end -}}
{{- $own := include "everspun.ownEnv" . -}}
{{- range .Values.extraEnv -}}
{{- if has .name (list "EVERSPUN_SERVING_TLS_CERT_FILE" "EVERSPUN_SERVING_TLS_KEY_FILE" "EVERSPUN_SERVING_GRPC_PORT") -}}
{{- fail (printf "extraEnv: %s: probes and services of the chart know replicas by plain HTTP alone" .name) -}}
{{- end -}}
{{- if regexMatch (printf "name: %s(,|\\n|$)" .name) $own -}}
{{- fail (printf "extraEnv: %s is the chart's own; set the value that it is made of" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "everspun.checkResources" -}}
{{- range $name, $asked := .resources.requests -}}
{{- with get $.resources.limits $name -}}
{{- if gt (include "everspun.amount" $asked | float64) (include "everspun.amount" . | float64) -}}
{{- fail (printf "%s.resources.requests.%s = %v: more than its limit %v" $.name $name $asked .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* A quantity such as 500m or 2Gi as a number. */ -}}
{{- define "everspun.amount" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- $unit := regexFind "[A-Za-z]*$" (toString .) -}}
{{- printf "%f" (mulf (trimSuffix $unit (toString .) | float64) (get $units $unit)) -}}
{{- end }}

{{- define "everspun.mounts" -}}
- {name: config, mountPath: /etc/everspun/everspun.toml, subPath: everspun.toml, readOnly: true}
- {name: shards, mountPath: /etc/everspun/shards, readOnly: true}
{{- if .Values.secrets.kafkaCa }}
- {name: kafka, mountPath: /etc/everspun/kafka, readOnly: true}
{{- end }}
- {name: state, mountPath: /var/lib/everspun}
- {name: cache, mountPath: /var/cache/everspun}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "everspun.volumes" -}}
- name: config
  configMap: {name: {{ include "everspun.name" . }}-config}
- name: shards
  secret: {secretName: {{ .Values.secrets.shards }}, defaultMode: 0440}
{{- with .Values.secrets.kafkaCa }}
- name: kafka
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
- {name: cache, emptyDir: {sizeLimit: 512Mi}}
- {name: tmp, emptyDir: {sizeLimit: 512Mi}}
{{- end }}

{{- define "everspun.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "everspun.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* A pod's spec: .root, .role, .args, .resources */ -}}
{{- define "everspun.podSpec" -}}
serviceAccountName: {{ include "everspun.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false   # their variables would begin with EVERSPUN_ and be no keys
terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
securityContext: {{- include "everspun.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "everspun.selector" . | nindent 14 }}
containers:
  - name: {{ .role }}
    image: {{ include "everspun.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ .args | toJson }}
    env:
{{- if eq .role "shard" }}
      - name: POD_INDEX
        valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
{{- end }}
{{ include "everspun.env" .root | indent 6 }}
{{- with .root.Values.secrets.environment }}
    envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
    securityContext: {{- include "everspun.containerSecurity" .root | nindent 6 }}
    ports:
      - {name: metrics, containerPort: {{ .root.Values.ports.metrics }}}
{{- if eq .role "replica" }}
      - {name: http, containerPort: {{ .root.Values.ports.http }}}
{{- end }}
    startupProbe:
      httpGet: {path: /live, port: metrics}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: {{ eq .role "replica" | ternary "/livez" "/live" }}, port: {{ eq .role "replica" | ternary "http" "metrics" }}}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: {{ eq .role "replica" | ternary "/readyz" "/ready" }}, port: {{ eq .role "replica" | ternary "http" "metrics" }}}
      periodSeconds: 5
      timeoutSeconds: 5
    resources: {{- toYaml .resources | nindent 6 }}
    volumeMounts: {{- include "everspun.mounts" .root | nindent 6 }}
volumes: {{- include "everspun.volumes" .root | nindent 2 }}
{{- if ne .role "shard" }}
  - {name: state, emptyDir: {}}
{{- end }}
{{- end }}

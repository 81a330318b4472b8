{{/* Where the ledger is kept: postgres, volume or pod. */}}
{{- define "to.ledgerPlace" -}}
{{- if or .Values.ledger.url .Values.ledger.existingSecret -}}
postgres
{{- else if and .Values.ledger.persistence.enabled (not .Values.sandbox.enabled) -}}
volume
{{- else -}}
pod
{{- end -}}
{{- end -}}

{{/* The volume of the ledger, as far as a StatefulSet cannot change it. */}}
{{- define "to.ledgerVolume" -}}
{{- if eq (include "to.ledgerPlace" .) "volume" -}}
{{- with .Values.ledger.persistence -}}
{{ .size }} {{ join "," .accessModes }} {{ default "default" .storageClass }}
{{- end -}}
{{- else -}}
none
{{- end -}}
{{- end -}}

{{/* The name of the Secret with the URL of Postgres. */}}
{{- define "to.ledgerSecret" -}}
{{- default (printf "%s-ledger-url" (include "to.name" .)) .Values.ledger.existingSecret -}}
{{- end -}}

{{/* The name of the Secret with the URL of ClickHouse. */}}
{{- define "to.eventsSecret" -}}
{{- default (printf "%s-events-url" (include "to.name" .)) .Values.ledger.events.existingSecret -}}
{{- end -}}

{{/* Where snapshots go, or nothing. */}}
{{- define "to.ledgerSnapshots" -}}
{{- if and .Values.ledger.snapshots.enabled (ne (include "to.ledgerPlace" .) "postgres") -}}
{{- if .Values.ledger.snapshots.url -}}
{{ .Values.ledger.snapshots.url }}
{{- else if and .Values.exports.existingSecret (hasPrefix "s3://" .Values.exports.url) -}}
{{ trimSuffix "/" .Values.exports.url }}/ledger/{{ .Release.Namespace }}/{{ include "to.name" . }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "to.ledgerEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- include "to.programEnv" . }}
{{- if eq (include "to.ledgerPlace" .) "postgres" }}
- name: LEDGER_URL
  valueFrom: {secretKeyRef: {name: {{ include "to.ledgerSecret" . }}, key: LEDGER_URL}}
{{- end }}
- name: LEDGER_ANSWERS_MB
  value: {{ int .Values.ledger.answersMegabytes | quote }}
{{- with .Values.ledger.events }}
{{- if or .url .existingSecret }}
- name: EVENTS_URL
  valueFrom: {secretKeyRef: {name: {{ include "to.eventsSecret" $ }}, key: EVENTS_URL}}
{{- end }}
{{- with .retention }}
- name: EVENTS_RETENTION
  value: {{ include "to.duration" . | quote }}
{{- end }}
{{- end }}
{{- with include "to.ledgerSnapshots" . }}
- name: LEDGER_SNAPSHOTS
  value: {{ . | quote }}
- name: LEDGER_SNAPSHOT_INTERVAL
  value: {{ include "to.duration" $.Values.ledger.snapshots.interval | quote }}
{{- with default $.Values.exports.region $.Values.ledger.snapshots.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with default $.Values.exports.endpoint $.Values.ledger.snapshots.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with default $.Values.exports.existingSecret $.Values.ledger.snapshots.existingSecret }}
{{- include "to.exportsEnv" . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The volumes that are not claimed by the StatefulSet. */}}
{{- define "to.ledgerVolumes" -}}
# The controller makes it at its first start; the pod waits for it.
- name: key
  secret: {secretName: tenant-operator-ledger, items: [{key: key, path: key}]}
{{- if eq (include "to.ledgerPlace" .) "pod" }}
- name: data
  emptyDir: {sizeLimit: 1Gi}
{{- end }}
{{- end -}}

{{/* What would leave the ledger's pod waiting without a word, or fail in the middle of an upgrade. */}}
{{- define "to.validateLedger" -}}
{{- $name := printf "%s-ledger" (include "to.name" .) }}
{{- $place := include "to.ledgerPlace" . }}
{{- if and (gt (int .Values.ledger.replicas) 1) (ne $place "postgres") }}
{{- fail "ledger.replicas is more than 1, and one process owns the ledger's volume: set ledger.existingSecret to keep the ledger in Postgres, or ledger.replicas to 1" }}
{{- end }}
{{- if and .Values.ledger.url .Values.ledger.existingSecret }}
{{- fail "ledger.url and ledger.existingSecret are both set: set one of them" }}
{{- end }}
{{- if and .Values.ledger.events.url .Values.ledger.events.existingSecret }}
{{- fail "ledger.events.url and ledger.events.existingSecret are both set: set one of them" }}
{{- end }}
{{- if and .Values.ledger.events.existingSecret .Values.credentials.verify (lookup "v1" "Namespace" "" "kube-system") }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace .Values.ledger.events.existingSecret }}
{{- if not (hasKey (dig "data" dict ($secret | default dict) | default dict) "EVENTS_URL") }}
{{- fail (printf "Secret %s/%s with the key EVENTS_URL not found: create it, or set credentials.verify=false if it is created later" .Release.Namespace .Values.ledger.events.existingSecret) }}
{{- end }}
{{- end }}
{{- if and .Values.ledger.existingSecret .Values.credentials.verify (lookup "v1" "Namespace" "" "kube-system") }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace .Values.ledger.existingSecret }}
{{- if not (hasKey (dig "data" dict ($secret | default dict) | default dict) "LEDGER_URL") }}
{{- fail (printf "Secret %s/%s with the key LEDGER_URL not found: create it, or set credentials.verify=false if it is created later" .Release.Namespace .Values.ledger.existingSecret) }}
{{- end }}
{{- end }}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- if $there }}
{{- $before := dig "annotations" "tenant-operator.dev/ledger-volume" "" $there.metadata }}
{{- $now := include "to.ledgerVolume" . }}
{{- if and $before (ne $before $now) }}
{{- fail (printf "the ledger's volume would change from %q to %q, and Kubernetes changes no volume of a StatefulSet: follow docs/operations.md#the-ledger, then run kubectl -n %s delete statefulset %s --cascade=orphan, which keeps the volume, and upgrade again" $before $now .Release.Namespace $name) }}
{{- end }}
{{- else if and (eq $place "volume") (not .Values.ledger.persistence.storageClass) (lookup "v1" "Namespace" "" "kube-system") }}
{{- $default := false }}
{{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items }}
{{- if eq (dig "annotations" "storageclass.kubernetes.io/is-default-class" "" .metadata) "true" }}{{ $default = true }}{{ end }}
{{- end }}
{{- if not $default }}
{{- fail "the cluster has no default StorageClass for the ledger's volume: set ledger.persistence.storageClass, ledger.existingSecret to use Postgres, or for a trial ledger.persistence.enabled=false" }}
{{- end }}
{{- end }}
{{- end -}}

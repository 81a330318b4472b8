{{/* The name of the Secret with the admin token, or nothing. */}}
{{- define "to.adminSecret" -}}
{{- default .Values.credentials.existingSecret .Values.credentials.adminToken.existingSecret -}}
{{- end -}}

{{/* What the ledger knows of /admin. */}}
{{- define "to.adminEnv" -}}
{{- if .Values.admin.enabled }}
- name: ADMIN_LISTEN
  value: "0.0.0.0:8086"
- name: ADMIN_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "to.adminSecret" . }}, key: {{ .Values.credentials.adminToken.key }}, optional: true}}
{{- with .Values.admin.url }}
- name: ADMIN_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.watchNamespaces }}
- name: WATCH_NAMESPACE
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What would leave the ledger's pod waiting for a Secret. */}}
{{- define "to.validateAdmin" -}}
{{- if .Values.admin.enabled }}
{{- $name := include "to.adminSecret" . }}
{{- $key := .Values.credentials.adminToken.key }}
{{- if not $name }}
{{- fail (printf "admin.enabled is true, and no Secret is named for %s: set credentials.adminToken.existingSecret, or credentials.existingSecret" $key) }}
{{- end }}
{{- if and .Values.credentials.verify (lookup "v1" "Namespace" "" "kube-system") }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace $name }}
{{- if not (hasKey (dig "data" dict ($secret | default dict) | default dict) $key) }}
{{- fail (printf "Secret %s/%s with the key %s not found: create it with the output of `openssl rand -hex 32`, or set credentials.verify=false if it is created later" .Release.Namespace $name $key) }}
{{- end }}
{{- range $token := splitList "," (index $secret.data $key | b64dec) }}
{{- if lt (len (trim $token)) 32 }}
{{- fail (printf "Secret %s/%s: a token in the key %s is shorter than 32 characters and could be guessed: use the output of `openssl rand -hex 32`" $.Release.Namespace $name $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

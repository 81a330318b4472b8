{{/* What each pod may do. A test compares this with what the pods did, and finds nothing that is not used. */}}
{{- define "to.rules.controller" -}}
- apiGroups: [tenant-operator.dev]
  resources: [tenants]
  verbs: [list, watch, patch, delete]
- apiGroups: [tenant-operator.dev]
  resources: [tenants/status]
  verbs: [update]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "to.rules.controllerPlans" -}}
- apiGroups: [tenant-operator.dev]
  resources: [plans]
  verbs: [list, watch, patch]
# The preflight checks look at their revision.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [plans.tenant-operator.dev, tenants.tenant-operator.dev]
  verbs: [get]
# And at the admission policies, to say who is exempt from them.
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies]
  verbs: [list]
{{- end -}}

{{- define "to.rules.controllerOwn" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [tenant-operator-controller]
  verbs: [get, update]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [tenant-operator-identity, tenant-operator-signing, tenant-operator-ledger]
  verbs: [get]
# The public half of that key, for web.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [tenant-operator-api-keys]
  verbs: [patch]
# How many leads there are, for web.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [tenant-operator-leads]
  verbs: [patch]
# The Stripe account and the Pinecone indexes that the tenants are in.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [tenant-operator-pins]
  verbs: [get, patch]
{{- end -}}

{{/* Kubernetes keeps Events of Plans, which have no namespace, in `default`. */}}
{{- define "to.rules.planEvents" -}}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* The controller makes the keys of identities and of the ledger; web reads them and no other Secret of this namespace. */}}
{{- define "to.rules.webOwn" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [tenant-operator-identity, tenant-operator-ledger]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [tenant-operator-api-keys, tenant-operator-leads, tenant-operator-pins]
  verbs: [get]
{{- end -}}

{{- define "to.rules.webPlans" -}}
- apiGroups: [tenant-operator.dev]
  resources: [plans]
  verbs: [get, list]
{{- end -}}

{{/* Stripe's webhooks name Tenants wherever they are, and so do API keys. */}}
{{- define "to.rules.webHints" -}}
- apiGroups: [tenant-operator.dev]
  resources: [tenants]
  verbs: [get, list, watch, patch]
{{- end -}}

{{- define "to.rules.web" -}}
- apiGroups: [tenant-operator.dev]
  resources: [tenants]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
{{- end -}}

{{/* /admin, which the ledger's pods serve, only reads. */}}
{{- define "to.rules.adminTenants" -}}
- apiGroups: [tenant-operator.dev]
  resources: [tenants]
  verbs: [list, watch]
{{- end -}}

{{- define "to.rules.adminPlans" -}}
- apiGroups: [tenant-operator.dev]
  resources: [plans]
  verbs: [list, watch]
{{- end -}}

{{/* A Role and its binding: (dict "of" (dict "root" $ "component" "web") "name" ... "rules" <template> "namespace" ...) */}}
{{- define "to.grant" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  {{- include "to.meta" .of | nindent 2 }}
rules:
  {{- include .rules .of.root | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  {{- include "to.meta" .of | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "to.serviceAccount" .of }}, namespace: {{ .of.root.Release.Namespace }}}
{{- end }}

{{- define "to.clusterGrant" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .name }}
  {{- include "to.meta" .of | nindent 2 }}
rules:
  {{- include .rules .of.root | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .name }}
  {{- include "to.meta" .of | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ .name }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "to.serviceAccount" .of }}, namespace: {{ .of.root.Release.Namespace }}}
{{- end }}

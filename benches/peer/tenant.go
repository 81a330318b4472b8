package main

import (
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var groupVersion = schema.GroupVersion{Group: "tenant-operator.dev", Version: "v1alpha1"}

// Tenant holds the fields that this operator reads and writes, written as ours writes them.
type Tenant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              Spec   `json:"spec"`
	Status            Status `json:"status,omitzero"`
}

type Spec struct {
	CompanyName string  `json:"companyName"`
	AdminEmail  string  `json:"adminEmail"`
	Plan        string  `json:"plan"`
	Billing     Billing `json:"billing"`
	TenantID    string  `json:"tenantId,omitempty"`
}

type Billing struct {
	Mode     string `json:"mode,omitempty"`
	Approved bool   `json:"approved,omitempty"`
}

type Status struct {
	Phase              string             `json:"phase,omitempty"`
	Message            string             `json:"message,omitempty"`
	Namespace          string             `json:"namespace,omitempty"`
	APIKeySecret       string             `json:"apiKeySecret,omitempty"`
	APIKeyGeneration   int64              `json:"apiKeyGeneration,omitempty"`
	APIKeyCreatedAt    *metav1.Time       `json:"apiKeyCreatedAt,omitempty"`
	AdminEmail         string             `json:"adminEmail,omitempty"`
	Subscription       string             `json:"subscription,omitempty"`
	Region             string             `json:"region,omitempty"`
	PaidAt             *metav1.Time       `json:"paidAt,omitempty"`
	ProvisionedAt      *metav1.Time       `json:"provisionedAt,omitempty"`
	Provisioning       *Run               `json:"provisioning,omitempty"`
	Config             *Config            `json:"config,omitempty"`
	Quota              *Quota             `json:"quota,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	Transitions        []Transition       `json:"transitions,omitempty"`
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
}

type Run struct {
	Attempts  int         `json:"attempts"`
	StartedAt metav1.Time `json:"startedAt"`
}

type Config struct {
	Plan     string            `json:"plan"`
	Limits   map[string]int64  `json:"limits"`
	Features []string          `json:"features"`
	Models   map[string]string `json:"models"`
}

type Quota struct {
	PeriodStart    metav1.Time `json:"periodStart"`
	PeriodEnd      metav1.Time `json:"periodEnd"`
	QueriesLimit   int64       `json:"queriesLimit"`
	DocumentsLimit int64       `json:"documentsLimit"`
}

type Transition struct {
	TenantID    string      `json:"tenant_id"`
	EventType   string      `json:"event_type"`
	FromState   string      `json:"from_state,omitempty"`
	ToState     string      `json:"to_state"`
	Timestamp   metav1.Time `json:"timestamp"`
	TriggeredBy string      `json:"triggered_by"`
	Reason      string      `json:"reason"`
	Seq         int64       `json:"seq"`
}

// TenantList is what a listing answers.
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tenant `json:"items"`
}

func addTenants(scheme *runtime.Scheme) {
	scheme.AddKnownTypes(groupVersion, &Tenant{}, &TenantList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
}

func (t *Tenant) copy() *Tenant {
	c := *t
	t.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Status.Conditions = slices.Clone(t.Status.Conditions)
	c.Status.Transitions = slices.Clone(t.Status.Transitions)
	return &c
}

// DeepCopyObject is what client-go asks of every type.
func (t *Tenant) DeepCopyObject() runtime.Object { return t.copy() }

// DeepCopyObject is what client-go asks of every type.
func (l *TenantList) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = make([]Tenant, len(l.Items))
	for i := range l.Items {
		c.Items[i] = *l.Items[i].copy()
	}
	return &c
}

func (s *Status) condition(kind string, holds metav1.ConditionStatus, reason, message string) {
	wanted := metav1.Condition{
		Type: kind, Status: holds, Reason: reason, Message: message, LastTransitionTime: metav1.Now(), ObservedGeneration: 1,
	}
	if i := slices.IndexFunc(s.Conditions, func(c metav1.Condition) bool { return c.Type == kind }); i >= 0 {
		s.Conditions[i] = wanted
		return
	}
	s.Conditions = append(s.Conditions, wanted)
}

func (s *Status) summary(ready, reconciling metav1.ConditionStatus, reason, message string) {
	s.condition("Ready", ready, reason, message)
	s.condition("Reconciling", reconciling, reason, message)
	s.condition("Stalled", "False", reason, message)
	s.Message = message
}

func (s *Status) enter(phase, event, by, reason string) {
	s.Transitions = append(s.Transitions, Transition{
		TenantID: "0b2e6a1e-6a52-4c3f-9d8b-1f2a3b4c5d6e", EventType: event, FromState: s.Phase, ToState: phase,
		Timestamp: metav1.Now(), TriggeredBy: by, Reason: reason, Seq: int64(len(s.Transitions) + 1),
	})
	s.Phase = phase
}

func (s *Status) begin() {
	now := metav1.Now()
	s.enter("PendingPayment", "signup", "admin", "The Tenant was created")
	s.condition("PlanFound", "True", "Found", "The plan exists")
	s.condition("PaymentReceived", "True", "Approved", "Manual billing is approved")
	s.enter("Provisioning", "provision", "admin", "Manual billing is approved")
	s.summary("False", "True", "Provisioning", "Creating the namespace, the API key and the sample documents")
	s.Subscription, s.PaidAt, s.Region, s.ObservedGeneration = "manual", &now, "us-east-1", 1
	s.Provisioning = &Run{StartedAt: now}
}

var models = map[string]string{
	"embedding": "text-embedding-3-small", "embeddingLarge": "text-embedding-3-large", "chat": "gpt-4o-mini",
}

func (s *Status) complete(namespace, secret string) {
	now := metav1.Now()
	s.condition("NamespaceReady", "True", "Usable", "The Pinecone namespace is usable")
	s.condition("APIKeyReady", "True", "Present", "The API key is in its Secret")
	s.condition("SampleDataReady", "True", "Seen", "A query found the sample documents")
	s.condition("WelcomeEmailSent", "Unknown", "Pending", "The welcome e-mail is next")
	s.Namespace, s.APIKeySecret, s.APIKeyGeneration, s.APIKeyCreatedAt = namespace, secret, 1, &now
	s.AdminEmail, s.ProvisionedAt = "someone@example.com", &now
	s.Config = &Config{
		Plan:   "enterprise",
		Limits: map[string]int64{"documents": 1_000_000, "queriesPerMonth": 5_000_000, "bytes": 1 << 40},
		Features: []string{
			"basic_rag", "semantic_search", "api_access",
		},
		Models: maps.Clone(models),
	}
	s.Quota = &Quota{now, metav1.NewTime(now.Add(30 * 24 * time.Hour)), 5_000_000, 1_000_000}
	s.enter("Active", "activate", "system", "All steps are complete")
	s.summary("True", "False", "Active", "The tenant is ready for use")
}

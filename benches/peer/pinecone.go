package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// The sample documents of the plan enterprise.
var samples = []string{
	"Your workspace is ready. This short document is here so that you can see a semantic search find it.",
	"RAG means retrieval-augmented generation, which finds the passages of your documents that fit a question and " +
		"lets a language model answer from them.",
}

// One index, with the bodies that all tenants share encoded once.
type pinecone struct {
	http   *http.Client
	host   string
	upsert []byte
	query  []byte
}

// Looks up the index's host, and embeds the sample documents.
func connect(ctx context.Context) (*pinecone, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	transport.MaxIdleConns = 256
	p := &pinecone{http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
	var index struct{ Host string }
	url := os.Getenv("PINECONE_URL") + "/indexes/" + or(os.Getenv("PINECONE_INDEX"), "multi-tenant-rag")
	if err := p.call(ctx, "GET", url, nil, &index); err != nil {
		return nil, err
	}
	p.host = index.Host
	if !strings.Contains(p.host, "://") {
		p.host = "https://" + p.host
	}
	return p, p.embed(ctx)
}

func (p *pinecone) embed(ctx context.Context) error {
	body, err := json.Marshal(map[string]any{"model": models["embedding"], "input": samples})
	if err != nil {
		return err
	}
	var answer struct {
		Data []struct{ Embedding []float32 }
	}
	if err := p.call(ctx, "POST", os.Getenv("OPENAI_BASE_URL")+"/embeddings", body, &answer); err != nil {
		return err
	}
	var vectors []any
	for i, text := range samples {
		vectors = append(vectors, map[string]any{
			"id": fmt.Sprintf("sample_%d", i+1), "values": answer.Data[i].Embedding, "metadata": map[string]string{"text": text},
		})
	}
	first := answer.Data[0].Embedding
	if p.upsert, err = json.Marshal(map[string]any{"vectors": vectors}); err != nil {
		return err
	}
	p.query, err = json.Marshal(map[string]any{"vector": first, "topK": len(samples), "includeMetadata": true})
	return err
}

// A body that all share, with the namespace of one.
func of(shared []byte, namespace string) []byte {
	return fmt.Appendf(nil, `{"namespace":%q,%s`, namespace, shared[1:])
}

// Makes the namespace, fills it, and sees both.
func (p *pinecone) provision(ctx context.Context, namespace string) error {
	body := fmt.Appendf(nil, `{"name":%q}`, namespace)
	if err := p.call(ctx, "POST", p.host+"/namespaces", body, nil); err != nil && !strings.Contains(err.Error(), "409") {
		return err
	}
	if err := p.seen(func() (bool, error) {
		err := p.call(ctx, "GET", p.host+"/namespaces/"+namespace, nil, nil)
		return err == nil, nil
	}); err != nil {
		return err
	}
	if err := p.call(ctx, "POST", p.host+"/vectors/upsert", of(p.upsert, namespace), nil); err != nil {
		return err
	}
	return p.seen(func() (bool, error) {
		var answer struct{ Matches []struct{ ID string } }
		err := p.call(ctx, "POST", p.host+"/query", of(p.query, namespace), &answer)
		return len(answer.Matches) == len(samples), err
	})
}

// Looks a few times.
func (p *pinecone) seen(look func() (bool, error)) error {
	for _, wait := range []time.Duration{50, 100, 200, 0} {
		if there, err := look(); there || err != nil {
			return err
		}
		time.Sleep(wait * time.Millisecond)
	}
	return fmt.Errorf("what was written cannot be seen yet")
}

func (p *pinecone) call(ctx context.Context, method, url string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Api-Key", os.Getenv("PINECONE_API_KEY"))
	request.Header.Set("Authorization", "Bearer "+or(os.Getenv("OPENAI_API_KEY"), "x"))
	request.Header.Set("X-Pinecone-Api-Version", "2026-04")
	answer, err := p.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %d %s", method, url, answer.StatusCode, content)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(content, into)
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestHealth(t *testing.T) {
	answer := httptest.NewRecorder()
	routes().ServeHTTP(answer, httptest.NewRequest("GET", "/health", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("/health answers %d", answer.Code)
	}
}

package httpjson

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadBody(t *testing.T) {
	budget := &Budget{Limit: 1 << 20}
	read := func(body string, limit int64) (string, error) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		b, err := ReadBody(httptest.NewRecorder(), r, limit, budget)
		if err != nil {
			return "", err
		}
		defer b.Close()
		if budget.Used() < int64(len(body)) {
			t.Errorf("%d bytes held, %d counted", len(body), budget.Used())
		}
		return string(b.Bytes), nil
	}
	for _, n := range []int{0, 1, firstRead - 1, firstRead, firstRead + 1, 300_000} {
		body := strings.Repeat("x", n)
		if got, err := read(body, 400_000); err != nil || got != body {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := read(strings.Repeat("x", 1001), 1000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("announced too large: %v", err)
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 100_001)))
	r.ContentLength = -1
	if _, err := ReadBody(httptest.NewRecorder(), r, 100_000, budget); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large, not announced: %v", err)
	}
	if _, err := read(strings.Repeat("x", 2<<20), 4<<20); !errors.Is(err, ErrBusy) {
		t.Errorf("over the budget: %v", err)
	}
	if budget.Used() != 0 {
		t.Errorf("%d bytes are still counted", budget.Used())
	}
}

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestTenantCommands(t *testing.T) {
	_, server := openOffice(t)
	runLines(t, server, []line{
		{"tenant stat acme", 0, `tenant  acme
frozen  no
LIMIT                USE     MOST
facets               3       none
total_bytes          24KiB   none
requests_per_second  15      none
NODE  FACETS  OPEN  BYTES  REQUESTS/s
n2    1       1     8KiB   5 `, ""},
		{"tenant set acme --facets 100 --bytes 10GiB --statement-time 500ms --rows none", 0, `facets               3       100
total_bytes          24KiB   10GiB
rows_per_second      30      none
statement_ms         -       500ms`, ""},
		{"tenant defaults --facets 7 --rows 1000 --requests 50", 0, "facets               7\nrequests_per_second  50", ""},
		{"tenant set acme --facets default", 0, `facets               3       7 (default)
rows_per_second      30      none
requests_per_second  15      50 (default)`, ""},
		{"tenant freeze acme", 0, "frozen  yes: nothing is answered", ""},
		{"tenant freeze --reads acme", 0, "frozen  writes: nothing is changed, reads go on", ""},
		{"tenant list", 0, `TENANT  FACETS  FROZEN  LIMITS
acme    3       writes  total_bytes=10GiB rows_per_second=none statement_ms=500ms`, ""},
		{"tenant list --json", 0, `{"tenant":"acme","facets":3,"frozen":"writes","limits":{"rows_per_second":"none","statement_ms":500,"total_bytes":10737418240}}`, ""},
		{"tenant unfreeze acme", 0, "frozen  no", ""},
		{"tenant defaults --json", 0, `{"facets":7,"requests_per_second":50,"rows_per_second":1000}`, ""},
		{"tenant set acme", 2, "", "needs a limit"},
		{"tenant set acme --facets 0", 2, "", "a number of 1 or more, none, or default"},
		{"tenant set acme --bytes x", 2, "", "a size such as 512MiB"},
		{"tenant set acme --statement-time 5", 2, "", "a time such as 500ms"},
		{"tenant stat ACME", 1, "", "tenant"},
	})
}

func TestSumBusy(t *testing.T) {
	list, seconds, err := sumBusy(map[string][]byte{
		"n1": []byte(`{"seconds":60,"tenants":[{"tenant":"a","requests":1,"writes":2,"bytes":3,"time_ms":4}]}`),
		"n2": []byte(`{"seconds":90,"tenants":[{"tenant":"a","requests":10,"writes":20,"bytes":30,"time_ms":40},{"tenant":"b","requests":1}]}`),
	})
	slices.SortFunc(list, func(a, b busyTenant) int { return strings.Compare(a.Tenant, b.Tenant) })
	if err != nil || seconds != 90 || !slices.Equal(list, []busyTenant{{"a", 11, 22, 33, 44}, {"b", 1, 0, 0, 0}}) {
		t.Errorf("%v over %d, %v", list, seconds, err)
	}
	if _, _, err := sumBusy(map[string][]byte{"n1": []byte("x")}); err == nil {
		t.Error("what is no answer is taken for one")
	}
}

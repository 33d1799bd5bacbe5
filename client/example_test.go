package client_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"

	_ "github.com/facetd/facetd/client/sqldriver"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Open(ctx, []string{"127.0.0.1:7400"}, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	acme, err := c.Bind("acme")
	if err != nil {
		log.Fatal(err)
	}
	notes, err := acme.Facet("notes") // created by the first write
	if err != nil {
		log.Fatal(err)
	}
	if err := notes.Script(ctx, "CREATE TABLE IF NOT EXISTS note(id INTEGER PRIMARY KEY, body TEXT)"); err != nil {
		log.Fatal(err)
	}
	res, err := notes.Exec(ctx, "INSERT INTO note(body) VALUES (?)", "hello")
	if err != nil {
		log.Fatal(err)
	}
	rows, err := notes.Query(ctx, "SELECT id, body FROM note WHERE id >= :from", client.Named("from", res.LastInsertID))
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var body string
		if err := rows.Scan(&id, &body); err != nil {
			log.Fatal(err)
		}
		fmt.Println(id, body)
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
}

func ExampleFacet_Tx() {
	var ctx context.Context
	var bank *client.Facet
	err := bank.Tx(ctx, func(tx *client.Tx) error {
		var balance int
		if err := tx.QueryRow(ctx, "SELECT balance FROM account WHERE id = ?", 1).Scan(&balance); err != nil {
			return err // rolled back
		}
		if balance < 10 {
			return errors.New("not enough money")
		}
		_, err := tx.Exec(ctx, "UPDATE account SET balance = balance - 10 WHERE id = ?", 1)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleFacet_Batch() {
	var ctx context.Context
	var bank *client.Facet
	_, err := bank.Batch(ctx, // all or nothing, in one round trip
		client.Stmt{SQL: "UPDATE account SET balance = balance - ? WHERE id = ?", Args: []any{10, 1}},
		client.Stmt{SQL: "UPDATE account SET balance = balance + ? WHERE id = ?", Args: []any{10, 2}},
	)
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleFacet_Idempotent() {
	var ctx context.Context
	var f *client.Facet
	_, err := f.Exec(ctx, "INSERT INTO visit DEFAULT VALUES")
	if errors.Is(err, facet.ErrUnknownOutcome) {
		fmt.Println("the connection was lost: it may have happened or not")
	}
	// With a key the SDK may try again: it happens once.
	_, err = f.Idempotent().Exec(ctx, "INSERT INTO visit DEFAULT VALUES")
	if err != nil {
		log.Fatal(err)
	}
}

func Example_databaseSQL() {
	db, err := sql.Open("facetd", "facetd://127.0.0.1:7400/acme/notes")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM note").Scan(&n); err != nil {
		log.Fatal(err)
	}
	fmt.Println(n)
}

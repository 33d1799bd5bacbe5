// The worker that bench/peers runs in workerd: PUT and GET of /object/NAME, a Durable
// Object of its own, and of /facet/NAME, a facet of one Durable Object.
import { DurableObject } from "cloudflare:workers";

export class Store extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS kv (id INTEGER PRIMARY KEY, v BLOB NOT NULL)");
  }
  write(v) {
    const done = this.ctx.storage.sql.exec(
      "INSERT INTO kv(id, v) VALUES (?, ?) ON CONFLICT(id) DO UPDATE SET v = excluded.v", 1, v);
    return done.rowsWritten;
  }
  read() {
    return this.ctx.storage.sql.exec("SELECT v FROM kv WHERE id = ?", 1).one().v;
  }
}

async function serve(store, request) {
  if (request.method === "PUT") {
    return new Response(String(await store.write(await request.arrayBuffer())));
  }
  return new Response(await store.read());
}

export class Root extends DurableObject {
  async fetch(request) {
    const name = new URL(request.url).pathname.split("/")[2];
    return serve(this.ctx.facets.get(name, () => ({ class: this.ctx.exports.Store })), request);
  }
}

export default {
  async fetch(request, env) {
    const [, kind, name] = new URL(request.url).pathname.split("/");
    switch (kind) {
      case "object":
        return serve(env.STORE.get(env.STORE.idFromName(name)), request);
      case "facet":
        return env.ROOT.get(env.ROOT.idFromName("peers")).fetch(request);
    }
    return new Response("ready");
  },
};

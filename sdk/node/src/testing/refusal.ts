// A refusal as the service writes it.

/** What an endpoint throws to refuse. */
export class FakeRefusal extends Error {
  readonly status: number
  readonly error: string
  readonly headers: Record<string, string>

  constructor(status: number, error: string, description: string, headers: Record<string, string> = {}) {
    super(description)
    this.status = status
    this.error = error
    this.headers = headers
  }
}

/** 400 with a code. */
export function refuse(error: string, description: string): FakeRefusal {
  return new FakeRefusal(400, error, description)
}

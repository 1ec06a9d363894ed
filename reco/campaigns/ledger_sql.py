"""The statements of the ledger. Arrays come in as columns (unnest); a group is one statement.

Row locks are taken in the order of user_id wherever two workers may meet, so none deadlock. What
was locked is changed by `= any (array (...))`, which is always looked up by the key: the planner
takes a limit that it cannot see for a tenth of the campaign, and would join the whole of it. So
does it with a campaign of which it has no statistics yet; `offset 0` keeps the campaign out of its
sight, and a row is found by both halves of its key.
"""

from typing import Final

from psycopg.sql import SQL

INBOX: Final = SQL(
    "create temp table if not exists inbox (user_id text, arm text) on commit delete rows"
)
FILL_INBOX: Final = SQL("copy inbox from stdin")
ENQUEUE: Final = SQL("""
    insert into deliveries (campaign_id, user_id, arm)
    select %(campaign)s, user_id, arm from inbox order by user_id
    on conflict do nothing
""")
EXCLUDE: Final = SQL("""
    insert into deliveries (campaign_id, user_id, arm, state, reply, settled_at)
    select %(campaign)s, user_id, arm, 'suppressed', %(reason)s, now()
    from unnest(%(users)s::text[], %(arms)s::text[]) as x (user_id, arm) order by user_id
    on conflict do nothing
""")
OUTCOMES: Final = SQL("""
    select user_id, state, message_id, reply from deliveries
    where campaign_id = %(campaign)s and user_id = any(%(users)s)
""")
ANALYZE: Final = SQL("analyze deliveries")

# A claim carries one number from an ever rising sequence; SKIP LOCKED lets many claim at once.
CLAIM: Final = SQL("""
    with due as materialized (
        select user_id from deliveries
        where campaign_id = %(campaign)s and state = 'deferred' and next_at <= now()
        order by next_at limit %(limit)s for update skip locked
    ), fresh as materialized (
        select user_id from deliveries
        where campaign_id = %(campaign)s and state = 'queued'
        order by user_id limit greatest(%(limit)s - (select count(*) from due), 0)
        for update skip locked
    ), fence as materialized (select nextval('delivery_fences') as number)
    update deliveries d
    set state = 'claimed', fence = fence.number, next_at = null,
        lease_until = now() + make_interval(secs => %(lease_s)s)
    from fence
    where d.campaign_id = %(campaign)s
        and d.user_id = any (array (select user_id from due union all select user_id from fresh))
    returning d.fence, d.user_id, d.arm, d.attempts
""")

CLAIM_THESE: Final = SQL("""
    with picked as materialized (
        select user_id from deliveries
        where campaign_id = %(campaign)s and user_id = any(%(users)s)
            and (state = 'queued' or (state = 'deferred' and next_at <= now()))
        order by user_id for update skip locked
    ), fence as materialized (select nextval('delivery_fences') as number)
    update deliveries d
    set state = 'claimed', fence = fence.number, next_at = null,
        lease_until = now() + make_interval(secs => %(lease_s)s)
    from fence
    where d.campaign_id = %(campaign)s and d.user_id = any (array (select user_id from picked))
    returning d.fence, d.user_id, d.arm, d.attempts
""")

# Both in one durable step, for single sends; waits for whoever has a row, then leaves it alone.
TAKE: Final = SQL("""
    with fence as materialized (select nextval('delivery_fences') as number)
    insert into deliveries as d (campaign_id, user_id, arm, state, fence, lease_until)
    select %(campaign)s, user_id, arm, 'claimed', fence.number,
        now() + make_interval(secs => %(lease_s)s)
    from unnest(%(users)s::text[], %(arms)s::text[]) as x (user_id, arm), fence
    order by user_id
    on conflict (campaign_id, user_id) do update
    set state = 'claimed', fence = excluded.fence, lease_until = excluded.lease_until,
        next_at = null
    where d.state = 'queued' or (d.state = 'deferred' and d.next_at <= now())
    returning d.fence, d.user_id, d.arm, d.attempts
""")

# Slices of flat arrays: half the cost of one array literal a mail. %(x)b is the binary format.
HAND_OFF: Final = SQL("""
    update deliveries d
    set state = 'handing_off', attempts = d.attempts + 1, message_id = m.message_id,
        rung = m.rung, items = (%(items)b::text[])[m.first:m.last],
        scores = (%(scores)b::float8[])[m.first:m.last],
        reasons = (%(reasons)b::int2[])[m.first:m.last], size_bytes = m.size_bytes,
        lease_until = now() + make_interval(secs => %(lease_s)s)
    from (
        select %(campaign)s::text as campaign_id, x.* from unnest(
            %(users)b::text[], %(messages)b::text[], %(rungs)b::int2[], %(sizes)b::int4[],
            %(firsts)b::int4[], %(lasts)b::int4[]
        ) as x (user_id, message_id, rung, size_bytes, first, last) offset 0
    ) m
    where d.campaign_id = m.campaign_id and d.user_id = m.user_id
        and d.fence = %(fence)s and d.state = 'claimed'
    returning d.user_id
""")

# The legal transitions of delivery.State that end a claim or a hand-off.
SETTLE: Final = SQL("""
    update deliveries d
    set state = o.state, reply = o.reply, next_at = o.next_at, lease_until = null,
        attempts = d.attempts - (not o.tried and d.state = 'handing_off')::int,
        settled_at = case when o.state <> 'deferred' then now() end
    from (
        select %(campaign)s::text as campaign_id, x.* from unnest(
            %(users)s::text[], %(states)s::text[], %(replies)s::text[],
            %(times)s::timestamptz[], %(tried)s::bool[]
        ) as x (user_id, state, reply, next_at, tried) offset 0
    ) o
    where d.campaign_id = o.campaign_id and d.user_id = o.user_id
        and d.fence = %(fence)s
        and (d.state, o.state) in (
            ('claimed', 'suppressed'), ('claimed', 'failed'), ('claimed', 'deferred'),
            ('handing_off', 'accepted'), ('handing_off', 'deferred'),
            ('handing_off', 'failed'), ('handing_off', 'uncertain'),
            ('uncertain', 'accepted'), ('uncertain', 'failed')
        )
    returning d.user_id
""")

RELEASE: Final = SQL("""
    update deliveries set state = 'queued', lease_until = null
    where campaign_id = %(campaign)s and fence = %(fence)s and state = 'claimed'
""")

RENEW: Final = SQL("""
    with held as materialized (
        select user_id from deliveries
        where campaign_id = %(campaign)s and fence = %(fence)s and lease_until is not null
            and state in ('claimed', 'handing_off')
        order by user_id for update skip locked
    )
    update deliveries d set lease_until = now() + make_interval(secs => %(lease_s)s)
    where d.campaign_id = %(campaign)s and d.user_id = any (array (select user_id from held))
""")

RECOVER: Final = SQL("""
    with expired as materialized (
        select user_id from deliveries
        where campaign_id = %(campaign)s and state in ('claimed', 'handing_off')
            and lease_until <= now()
        order by user_id for update skip locked
    ), moved as (
        update deliveries d
        set lease_until = null,
            state = case d.state when 'claimed' then 'queued' else 'uncertain' end,
            reply = case d.state when 'handing_off' then 'the sender died in the hand-off' end,
            settled_at = case d.state when 'handing_off' then now() end
        where d.campaign_id = %(campaign)s and d.user_id = any (array (select user_id from expired))
        returning d.state
    )
    select state, count(*) from moved group by state
""")

STOP: Final = SQL("""
    update deliveries
    set state = 'suppressed', reply = %(reason)s, next_at = null, settled_at = now()
    where campaign_id = %(campaign)s and state in ('queued', 'deferred')
""")

COUNTS: Final = SQL("""
    select state, count(*) from deliveries where campaign_id = %(campaign)s group by state
""")
NEXT_DUE: Final = SQL("""
    select min(next_at) from deliveries where campaign_id = %(campaign)s and state = 'deferred'
""")
ROWS: Final = SQL("""
    select user_id, arm, state, fence, attempts, message_id, rung, items, scores, reasons, reply,
        size_bytes, queued_at, case when state = 'accepted' then settled_at end
    from deliveries where campaign_id = %(campaign)s order by user_id
""")

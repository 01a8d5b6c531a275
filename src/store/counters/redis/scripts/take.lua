-- Takes one by every rate of every key, or nothing. ARGV[1]: 0 looks, 1 takes, 2 takes what a lease wants alone. The arithmetic of core::limit, in microseconds.
-- KEYS: one of each ask. ARGV: what to do, how long a lease is held, then of each key how many a lease wants and how many rates there are, and of each rate
-- unit (seconds), count, burst (0: a window).
-- Answers: now, whether it is refused, then of each key how many are leased, and of each rate
-- used (of a bucket: level), oldest and newest slot (-1: none), the slot whose end grants one again (-1: it does now), whether it refuses.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local takes, hold = ARGV[1], tonumber(ARGV[2])
local SLOTS, LIFE = 250, 253
-- In slots: living ones, and those that leases reach ahead (of a second's window half of it), are never so far apart.
local WIDE = 1000
local argument = 2

local function number()
  argument = argument + 1
  return tonumber(ARGV[argument])
end

-- Lua would write large ones with an exponent.
local function text(value) return string.format('%.0f', value) end

local function look_at_window(key, rate)
  local name = text(rate.unit)
  local function field(slot) return name .. ':' .. text(slot) end
  local function taken(slot) return tonumber(redis.call('HGET', key, field(slot)) or '0') end
  local held = redis.call('HMGET', key, name .. 's', name .. 'o', name .. 'n')
  local used, oldest, newest = tonumber(held[1] or '0'), tonumber(held[2] or '-1'), tonumber(held[3] or '-1')
  rate.slot = rate.unit * 1000000 / SLOTS
  rate.at = math.floor(now / rate.slot)
  rate.field = field
  local ahead, dead = rate.at + math.ceil(hold / rate.slot), rate.at - LIFE
  if used > 0 and newest - oldest > WIDE then
    -- Never walked slot by slot: whatever brought it here, what there is are few fields.
    used, oldest, newest, rate.changed = 0, -1, -1, true
    local fields = redis.call('HGETALL', key)
    for place = 1, #fields, 2 do
      local slot, count = tonumber(string.match(fields[place], '^' .. name .. ':(%d+)$')), tonumber(fields[place + 1])
      if slot and (slot <= dead or slot > ahead) then redis.call('HDEL', key, fields[place]) end
      if slot and slot > dead then
        if slot > ahead then
          slot = ahead
          redis.call('HINCRBY', key, field(slot), text(count))
        end
        used, newest = used + count, math.max(newest, slot)
        oldest = oldest < 0 and slot or math.min(oldest, slot)
      end
    end
  end
  if used > 0 and newest > ahead then
    -- The clock stepped back: it counts as if it were taken now.
    local moved = 0
    for slot = math.max(oldest, ahead + 1), newest do
      moved = moved + taken(slot)
      redis.call('HDEL', key, field(slot))
    end
    redis.call('HINCRBY', key, field(ahead), text(moved))
    oldest, newest, rate.changed = math.min(oldest, ahead), ahead, true
  end
  if used > 0 and oldest <= dead then
    for slot = oldest, math.min(dead, newest) do
      used = used - taken(slot)
      redis.call('HDEL', key, field(slot))
    end
    oldest, rate.changed = dead + 1, true
  end
  while used > 0 and oldest < newest and taken(oldest) == 0 do
    oldest, rate.changed = oldest + 1, true
  end
  if used <= 0 then used, oldest, newest = 0, -1, -1 end
  rate.used, rate.oldest, rate.newest, rate.release = used, oldest, newest, -1
  rate.refuses = used >= rate.count
  if rate.refuses then
    local left, slot = used, oldest
    while slot <= newest do
      left = left - taken(slot)
      if left < rate.count then break end
      slot = slot + 1
    end
    rate.release = slot
  end
end

local function unseen(rate)
  if rate.leased then return rate.count * hold end
  return 0
end

local function look_at_bucket(key, rate)
  local name = text(rate.unit)
  local held = redis.call('HMGET', key, name .. 't', name .. 'l', name .. 'h')
  rate.length = rate.unit * 1000000
  rate.since, rate.used = tonumber(held[1] or '0'), tonumber(held[2] or '0')
  local passed = now - rate.since
  if passed > 0 then
    if passed >= rate.used / rate.count then rate.used = 0 else rate.used = rate.used - passed * rate.count end
  end
  -- What is leased may be spent later than it was poured in: as long as the bucket was not empty since, it may be fuller than it looks, by what runs out of it within a lease.
  rate.leased = held[3] == '1' and (rate.used > 0 or now < rate.since + hold)
  rate.oldest, rate.newest, rate.release = -1, -1, -1
  rate.refuses = rate.used + unseen(rate) + rate.length > rate.burst * rate.length
end

-- A lease is only for who is far from the limit: with it, less than half is taken.
local function is_far(rate, want)
  if rate.burst == 0 then return (rate.used + 1 + want) * 2 <= rate.count end
  return (rate.used + rate.length * (1 + want) + rate.count * hold) * 2 <= rate.burst * rate.length
end

local function add(key, rate, count, later)
  if rate.burst == 0 then
    local slot = rate.at
    if later then slot = math.floor((now + hold) / rate.slot) end
    redis.call('HINCRBY', key, rate.field(slot), text(count))
    rate.oldest = rate.used == 0 and slot or math.min(rate.oldest, slot)
    rate.newest = math.max(rate.newest, slot)
    rate.used = rate.used + count
  else
    rate.used = rate.used + rate.length * count
    rate.leased = rate.leased or later
    rate.since = math.max(rate.since, now)
  end
  rate.changed = true
end

local function store(key, rate)
  local name = text(rate.unit)
  if rate.burst == 0 then
    redis.call('HSET', key, name .. 's', text(rate.used), name .. 'o', text(rate.oldest), name .. 'n', text(rate.newest))
    return (rate.newest + LIFE) * rate.slot - now
  end
  redis.call('HSET', key, name .. 't', text(rate.since), name .. 'l', text(rate.used), name .. 'h', rate.leased and '1' or '0')
  return rate.since - now + rate.used / rate.count
end

local asks, refused = {}, false
for index, key in ipairs(KEYS) do
  local ask = { want = number(), rates = {}, leased = 0 }
  asks[index] = ask
  for place = 1, number() do
    local rate = { unit = number(), count = number(), burst = number() }
    ask.rates[place] = rate
    if rate.burst == 0 then look_at_window(key, rate) else look_at_bucket(key, rate) end
    refused = refused or rate.refuses
  end
end

local answer = { now, refused and 1 or 0 }
for index, key in ipairs(KEYS) do
  local ask, lives = asks[index], 0
  if takes ~= '0' and not refused then
    local far = ask.want > 0
    for _, rate in ipairs(ask.rates) do far = far and is_far(rate, ask.want) end
    for _, rate in ipairs(ask.rates) do
      if takes == '1' then add(key, rate, 1, false) end
      if far then add(key, rate, ask.want, true) end
    end
    if far then ask.leased = ask.want end
  end
  table.insert(answer, ask.leased)
  for _, rate in ipairs(ask.rates) do
    if rate.changed then lives = math.max(lives, store(key, rate)) end
    for _, told in ipairs({ rate.used + unseen(rate), rate.oldest, rate.newest, rate.release, rate.refuses and 1 or 0 }) do
      table.insert(answer, told)
    end
  end
  local ends = math.ceil(lives / 1000) + 1000
  if lives > 0 and ends > redis.call('PTTL', key) then redis.call('PEXPIRE', key, text(ends)) end
end
return answer

"""English."""

TEXTS = {
    # Asking
    "help": (
        "Tell me what to write: the product, who it is for, two or three selling points, and how long it should be.\n"
        "For example: write a line for our Larkbeam desk lamp for students, warm light and folds flat, 30 words."
    ),
    "open_form": "Fill in a form",
    "no_rewrite": (
        "I cannot rewrite a draft by a reply. Under the draft, *{correct}* opens it for your own edit and *{again}* "
        "writes another one; *{change}* beside my note changes the brief. For new copy, tell me what product it is for."
    ),
    "understood": "Writing: {what}",
    "no_product": "I found no product name, so I write from your words as they are: “{text}”",
    "change": "Change",
    "for_audience": "for {audience}",
    "tone_is": "tone: {tone}",
    "length_en": "{low}–{high} words",
    "length_zh": "{low}–{high} Chinese characters",
    "as_list": "as a list",
    "no_emoji": "no emoji",
    "emoji_is": "{low}–{high} emoji",
    "emoji_exactly": "{n} emoji",
    "with_call": "ends with a call to action",
    "without_call": "no call to action",
    "never": "never says: {phrases}",
    "brief_too_long": (
        "This brief has {n} characters; I read up to {most}. Keep what the copy must say and send it again."
    ),
    "cannot_write_there": "I cannot write in <#{channel}>. Invite me there with /invite @Copydesk and ask again.",
    # The form
    "ask_title": "What shall I write?",
    "ask_submit": "Write it",
    "cancel": "Cancel",
    "close": "Close",
    "ask_product": "Product",
    "hint_product": "Its name, as it should stand in the copy.",
    "ask_audience": "Audience",
    "hint_audience": "Who reads it? For example: students who read late.",
    "ask_selling_points": "Selling points",
    "hint_selling_points": "One a line; two or three work best.",
    "ask_tone": "Tone",
    "hint_tone": "One or two words, such as calm or playful.",
    "ask_length_min": "Shortest (words, or Chinese characters)",
    "ask_length_max": "Longest",
    "ask_language": "Language of the copy",
    "language_auto": "Same as the brief",
    "language_en": "English",
    "language_zh": "Chinese",
    "ask_call_to_action": "Call to action at the end",
    "call_to_action_yes": "Yes",
    "call_to_action_no": "No",
    "call_to_action_free": "Either is fine",
    "ask_format": "Format",
    "format_paragraph": "Paragraph",
    "format_list": "List",
    "ask_emoji": "Emoji",
    "emoji_none": "None",
    "emoji_few": "One or two",
    "emoji_free": "As it comes",
    "ask_must_not": "Must not be said",
    "hint_must_not": "Words or phrases, divided by commas.",
    "ask_category": "Category",
    "category_beauty": "Beauty",
    "category_food": "Food",
    "category_home": "Home",
    "category_electronics": "Electronics",
    "category_fashion": "Fashion",
    "category_services": "Services",
    "category_office": "Office",
    "category_other": "Other",
    "product_missing": "Name the product.",
    "length_turned_round": "The longest must be at least the shortest ({low}).",
    # Drafts
    "base_model": "base model",
    "size_en": "{n} words",
    "size_zh": "{n} characters",
    "size_asked": "asked: {low}–{high}",
    "cut_off": "cut off, it became too long",
    "cut_short": "cut off before its end",
    "brief_verbatim": "written from your words",
    "good": "Good",
    "bad": "Not good",
    "correct": "Correct",
    "again": "Try again",
    "engine_restarting": "The engine is restarting. Your draft comes here by itself; there is nothing to do.",
    "engine_learning": (
        "I am learning from your corrections. Your draft comes here by itself afterwards; there is nothing to do."
    ),
    "engine_learning_left": (
        "I am learning from your corrections and will be back in {left}. Your draft then comes here by itself; "
        "there is nothing to do."
    ),
    "empty_draft": "The model found no words twice. Add a selling point or two with “Change”, or ask again.",
    "not_saved": (
        "The draft could not be saved; perhaps the desk's disk is full. Please tell your admin. "
        "Once there is room, your draft comes here by itself."
    ),
    "no_draft": (
        "There is no draft this time. Shorten the brief and ask again; if that does not help, tell your admin: {detail}"
    ),
    # Ratings
    "thanks_up": "Thanks. This draft will be an example for the next round.",
    "thanks_up_corrected": "Thanks. The corrected text is the example for the next round.",
    "thanks_up_held_out": (
        "Thanks. One brief in ten is kept to test new versions with; this is one, so it is no example to learn from."
    ),
    "thanks_up_disputed": "Thanks. Somebody else found it not good, so it is no example for now.",
    "why_down": "Thanks for telling. What is wrong with it? One tap:",
    "reason_off_brief": "Off brief",
    "reason_facts": "Wrong facts",
    "reason_tone": "Wrong tone",
    "reason_length": "Too long or short",
    "reason_style": "Style",
    "reason_other": "Something else",
    "reason_noted": "Noted: {reason}. To show how it should read, press Correct under the draft.",
    # Corrections
    "correct_title": "Correct this draft",
    "correct_label": "How should it read?",
    "correct_part": "How should it read? Part {n}",
    "correct_hint": "Your text replaces the draft as an example: the next round learns from it.",
    "save": "Save",
    "corrected": "<@{user}> corrected the draft:",
    "trains_next": "This trains the next round.",
    "tests_next": "One brief in ten is kept to test new versions with; this is one.",
    "not_a_draft": "This message is not a draft of mine. Choose “Correct this draft” on a draft.",
    # Scorecards
    "card_pass": "{version} passes in {language}",
    "card_inconclusive": "{version} in {language}: not sure yet",
    "card_fail": "{version} does not pass in {language}",
    "why_meets_bar": "At least {bar} of its copy should be excellent; it is between {low} and {high} ({n} briefs).",
    "why_too_few": (
        "Between {low} and {high} of its copy is excellent; the bar is {bar}. {n} briefs cannot tell more."
    ),
    "why_below_bar": "Between {low} and {high} of its copy is excellent ({n} briefs); the bar is {bar}.",
    "why_worse_than_live": (
        "It is worse than {baseline}: {lost} briefs are no longer excellent, {gained} got so (p = {p})."
    ),
    "why_forbidden_claim": "{count} of {total} texts make a claim that is not allowed: “{claim}” for {product}.",
    "why_leak": "{count} briefs of the test were in its training, such as {item}; the figures mean nothing.",
    "why_people_below_bar": (
        "The checks pass it, but people find only {low} to {high} of its copy excellent ({n} texts); the bar is {bar}."
    ),
    "why_people_prefer_live": (
        "The checks pass it, but people who compared blind chose {baseline}’s copy for {losses} briefs and its own for "
        "{wins} (p = {p})."
    ),
    "why_less_stable": (
        "It meets the bar, but it is less stable than {baseline}: {low} to {high} fewer briefs come out well {repeats} "
        "times of {repeats}."
    ),
    "caveat_small_sample": "fewer than 30 briefs: only large differences show",
    "caveat_ceiling_one_fewer": "the human ceiling is scored against one reference fewer",
    "caveat_bleu_band": "compare BLEU with the human ceiling, not with rules of thumb",
    "memorised": "{count} of {total} texts repeat 13 words or more in a row of a training text.",
    "too_similar": "{count} of {total} briefs get nearly the same text each time.",
    "caveat_memorised": "at least one text repeats a training text",
    "caveat_cut_off": "at least one text was cut off",
    "caveat_extended": "extended after a first look: the intervals are a little too narrow",
    "not_measured": "not measured",
    "col_figure": "95 % intervals in brackets",
    "col_difference": "difference",
    "excellent": "excellent",
    "acceptable": "excellent or acceptable",
    "stability": "stable ({k} of {k} meet the brief)",
    "with_ceiling": "{name} (people: {ceiling})",
    "forbidden": "forbidden claims",
    "card_fallback": "Excellent {excellent}, stable {stability}.",
    "card_context": (
        "{items} briefs of the suite {suite}, seed {seed}. Graded by checks, which do not look at tone or audience."
    ),
    "chart_title": "Scorecard of {version}",
    "chart_bars": "Share of texts, in percent",
    "chart_trend": "Versions so far, in percent (★ approved)",
    "chart_acceptable": "or acceptable",
    "chart_stable": "stable ({k} of {k})",
    "chart_stability": "stable",
    "chart_by_people": "excellent, by people",
    "worst": "Among the worst: {product} – {reasons}",
    "card_unreadable": "The scorecard of {version} cannot be shown; score it again: copydesk eval run",
    "approve": "Approve",
    "reject": "Reject",
    "approve_what": "{version} will write the next draft instead of {live}. You can roll back at any time.",
    "approve_against": "Its scorecard says: *{headline}*. You can approve it all the same; say why.",
    "compared_with_another": (
        "Its scorecard compares it with {baseline}, but live now is {live}. "
        "`copydesk eval run {version}` compares those two."
    ),
    "also_scored": "It has another scorecard: *{headline}*.",
    "reject_what": "{version} stays out of service. Drafts go on coming from {live}.",
    "decision_reason": "Why? The team reads it.",
    "was_approved": "{who} approved {version} on {when} UTC.",
    "was_rejected": "{who} rejected {version} on {when} UTC.",
    "because": "“{reason}”",
    "command_line": "the command line",
    "not_scored_in": "Nobody has scored it in {language}.",
    "now_live": "{version} is live: it writes the next draft. Before it was {previous}. Approved by {who}.",
    "roll_back": "Roll back",
    "rolled_back": "{version} is live again: {who} rolled {previous} back.",
    # Trials
    "try": "Try with {share} of the people",
    "end_trial": "End the trial",
    "trial_on": "*Being tried with {share} of the people* since {since} UTC; started by {who}. Liked so far:",
    "trial_over": (
        "*{version} was tried with {share} of the people* from {since} to {until} UTC; ended by {who}. Liked:"
    ),
    "trial_rate": "{version}: {up} of {total} times ({share}, likely {low} to {high}; people who rated: {people})",
    "trial_unrated": "{version}: not rated yet",
    "trial_few": "Too few people have rated yet to compare: at least {people} a version.",
    "trial_open": "The difference may be chance.",
    "trial_better": "{version} is liked more often, and not by chance.",
    "trial_worse": "{version} is liked less often, and not by chance.",
    # Grading blind
    "grade_blind": "Grade 20 blind",
    "compare_blind": "Compare 20 blind",
    "close_votes": "End the comparison",
    "more": "30 more briefs",
    "more_started": "30 more briefs are being written and scored. The scorecard changes when they are done.",
    "more_failed": (
        "<@{user}> The 30 more briefs could not be scored. Press the button again; what was written is kept. {detail}"
    ),
    "grades_title": "Grade blind",
    "votes_title": "Which is better?",
    "grades_progress": "{n} of {total}",
    "votes_progress": "{n} of {total}",
    "later": "Go on later",
    "back": "Back",
    "no_text": "_The answer is empty._",
    "grades_excellent": "Excellent",
    "grades_acceptable": "Acceptable",
    "grades_fail": "Fail",
    "grades_hint": (
        "Excellent: I would publish it as it is. Acceptable: after a small edit. Fail: it misses the brief. "
        "You do not see who wrote it; your last tap counts."
    ),
    "votes_a": "A is better",
    "votes_tie": "Equally good",
    "votes_b": "B is better",
    "votes_hint": "Which would you rather publish? One is by {version}, one by {baseline}; the end tells.",
    "graded_all": "Thank you. You graded all {n} texts.",
    "graded_rates": (
        "Excellent by now, from everybody who graded: {version} {candidate}, {baseline} {live}. "
        "Both stand on the scorecard."
    ),
    "graded_fed": (
        "Your grades count beside those of the checks, and they show whether a judging model can be trusted: "
        "{labels} of {needed} graded texts are there."
    ),
    "voted_all": "Thank you. You compared all {n} pairs; here is what you preferred.",
    "votes_closed": "<@{user}> has ended this comparison.",
    "votes_closed_at": "<@{user}> ended this comparison when you had voted on {n} of {total} pairs.",
    "excellent_by_people": "excellent, by people",
    "people_graded": "*Graded blind by {n}.* People and checks {agree}.",
    "agree": "{how} (κ = {kappa}, {n})",
    "agree_0": "hardly agree",
    "agree_1": "agree a little",
    "agree_2": "agree somewhat",
    "agree_3": "agree well",
    "agree_4": "almost always agree",
    "agree_unknown": "cannot be compared yet ({n})",
    "n_texts": "{n} texts",
    "n_pairs": "{n} pairs",
    "duel": (
        "*Compared blind:* {version} was better {wins} times, {baseline} {losses} times, {ties} ties ({voters} voting)."
    ),
    "duel_better": "That is more than chance: {needed} of {decided} are needed ({p}).",
    "duel_worse": "{baseline} is better, and not by chance: {needed} of {decided} are needed ({p}).",
    "duel_open": "It may be chance: {needed} of {decided} are needed ({p}).",
    "duel_few": "Too few were decided to prove anything.",
    "duel_early": "The comparison was ended early.",
    "voting": "Being compared by {n} now; the result shows when they are through.",
    "judge_said": "*Judge {judge}* ({state}): excellent {candidate}, {baseline} {live}.",
    "judge_compared": "Against {baseline}: {wins} better, {ties} ties, {losses} worse.",
    "judge_agrees": "It and people {agree}.",
    "judge_votes": "On which of two texts is better, they {agree}.",
    "judge_unscored": "Questions that it left without a usable answer: {n}.",
    "calibrated": "checked against people",
    "uncalibrated": "uncalibrated, {labels} of {needed} texts graded by people",
    # Rounds
    "round_loading": "Training {version}. The base model is being loaded.",
    "round_running": "Training {version}: {share} done, {left} left.",
    "minutes": "about {n} min",
    "under_a_minute": "less than a minute",
    "round_cancel": "Cancel this round",
    "round_stopping": "{who} cancelled {version}; it stops after this step.",
    "round_cancelled": "{who} cancelled {version}. What is live goes on; no example is lost.",
    "round_interrupted": "Training {version} was interrupted. The next round goes on where it stopped.",
    "round_failed": "{version} was not finished. What is live goes on. Show this to your admin: {why}",
    "round_done": "{version} has learned from {pairs} examples. Its scorecard comes here.",
    # App Home
    "home_title": "Copydesk",
    "home_live": "Drafts are written by {version}.",
    "home_counts": (
        "Collected so far: {pairs} examples, {ratings} ratings, {corrections} corrections. Being written: {waiting}."
    ),
    "home_card": "Newest scorecard: {verdict}",
    "no_card": "none yet",
    "prompts_title": "Try one of these",
    "prompt_1_title": "A line for a product",
    "prompt_1": "Write a line for our Larkbeam desk lamp for students, warm dimmable light and folds flat, 30 words",
    "prompt_2_title": "A post that avoids certain words",
    "prompt_2": "Write a post for Kettlewick oat bars for hikers, baked with honey, 40 words, avoid best or perfect",
    # When something fails
    "error_gone": "This draft is gone. Ask for a new one.",
    "error_no_rating": "You no longer rate this draft as not good. Press “Not good” again first.",
    "error_correction_empty": "Write the copy as it should read.",
    "error_correction_same": "This is the draft as it was. Change it, or close this and press “Good” to keep it.",
    "error_correction_again": "This is the text as it was corrected last. Change it, or close this to leave it so.",
    "error_rolled_back_already": "Nothing was changed: {who} made {live} live meanwhile.",
    "error_live_changed": (
        "Nothing was changed: {who} made {live} live meanwhile. Look at the comparison again before you decide."
    ),
    "error_decided_already": "Nothing changed: {who} decided about {version} already.",
    "error_colleagues_only": "Grading is for the people of <#{channel}>. Join it and press again.",
    "error_not_gradable": (
        "The texts of {version} were scored before grading was possible. Score it again: copydesk eval run {version}"
    ),
    "error_more_under_way": "30 more briefs are being scored already. The scorecard changes when they are done.",
    "error_sheet_gone": "This list is gone. Press the button under the scorecard again.",
    "error_not_your_sheet": "This list belongs to somebody else. Press the button under the scorecard for your own.",
    "error_leads_only": "Only a lead decides about versions: {leads}",
    "error_files_changed": (
        "The files of {version} are not those that were trained, so it stays out. Train again: copydesk round run"
    ),
    "error_file_missing": (
        "The adapter of {version} has no {file} any more, so it stays out. Train again: copydesk round run"
    ),
    "error_other_files_scored": (
        "The scorecard is about other files than {version} has now. Score it again: copydesk eval run {version}"
    ),
    "error_no_version": "There is no version {version} any more.",
    "error_not_saved": (
        "Nothing was saved: the desk's database takes nothing now. Try again in a minute; if it stays so, "
        "tell your admin that its disk may be full."
    ),
    "error_prompt_too_long": "The brief is too long for the model.",
    "error_model_unknown": "The engine does not know the model that it was asked for; the log names it.",
    "error_key_refused": "The engine refuses the key; COPYDESK_ENDPOINT_KEY must be one that it accepts.",
    "error_base_unknown": "COPYDESK_ENDPOINT_MODEL must be the name of one of the engine's models; the log lists them.",
    "error_no_models": "The engine lists no models as OpenAI's protocol does; COPYDESK_ENDPOINT must be corrected.",
    "error_request_refused": "The engine refused the request ({status}); the log says why.",
    "error_adapter_refused": "The engine refused {version}; the log says why.",
    "error_endpoint_loads_none": (
        "{version} cannot go live: the engine that writes here does not know it and takes no new versions. "
        "Ask whoever runs that engine to load {version}, then press the button again."
    ),
    "error_not_served": "{version} cannot go live, since the engine could not serve it: {failure}",
    "error_previous_not_served": (
        "{version}, which was live before, cannot be served: {failure} "
        "Return to the base model: copydesk version rollback --base"
    ),
    "error_not_tried": "{version} cannot be tried, since the engine could not serve it: {failure}",
    "error_untried": (
        "{version} cannot go live yet: the engine has not shown so far that it can serve it. "
        "Press Approve again in a minute."
    ),
    "error_tried_already": "{version} is being tried already. End that trial first; its scorecard has the button.",
    "error_nothing_before": "The base model is live already; there is nothing to roll back to.",
    "error_no_round": "No round is running any more, so there is nothing to cancel.",
    "error_other": "That did not work. Try again in a minute; if it stays so, show this to your admin: {detail}",
    "error_unexpected": "That did not work, and it is my fault. Try again; the log knows what happened.",
}

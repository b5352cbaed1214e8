# What receipts and notices say, in Kyrgyz. Amounts, dates and codes arrive formatted; days are numbers.

subject = Төлөм дүмүрчөгү № { $number }: { $service }, { $amount }
subject-again = Төлөм дүмүрчөгүнүн көчүрмөсү № { $number }: { $service }, { $amount }
title = Төлөм дүмүрчөгү
paid = Төлөндү
intro = Төлөмүңүз кабыл алынды. Бул дүмүрчөктү сактап коюңуз.
intro-again = Бул дүмүрчөктү кайра жөнөтүү биздин сайт аркылуу суралды. Бул көчүрмө: сиз бир жолу гана төлөгөнсүз, андан башка акча алынган жок.
amount = { $amount } { $currency }
currency-kgs = сом

label-number = Дүмүрчөктүн номери
label-paid-at = Күнү жана убактысы
label-service = Кызмат
label-bill = Төлөм коду
label-applicant = Арыз берүүчү
label-amount = Суммасы
label-card = Карта
label-authorization = Авторизация коду
label-rrn = Банктагы операциянын номери (RRN)
label-payment = Төлөмдүн идентификатору

service-passport = Паспорт
service-driving-licence = Айдоочулук күбөлүк
service-meken-card = «Мекен» картасы
service-other = Мамлекеттик кызмат

brand-visa = Visa
brand-mastercard = Mastercard
brand-mir = Мир
brand-unionpay = UnionPay
brand-elcart = Элкарт
brand-other = Банк картасы

online = Дүмүрчөктү сайттан ачуу
verify = Дүмүрчөктүн чыныгы экенин текшерүү
scan = Кодду телефонуңуздун камерасы менен окутуңуз же баракты ачыңыз:
questions = Суроолоруңуз болсо: { $operator }, тел. { $phone }, { $email }
not-yours = Эгер бул төлөмдү сиз жасабаган болсоңуз, дароо банкыңызга жана бизге кабарлаңыз.

# Short messages, of two segments at most: every letter counts.
sms = { $amount } төлөндү: { $service }. Дүмүрчөк { $number }: { $link }
sms-short = { $amount } төлөндү. Дүмүрчөк: { $link }

# Notices: what is known, what to do, and what happens to the money.
unknown-subject = { $amount } өлчөмүндөгү төлөмүңүз текшерилип жатат: азырынча кайра төлөбөңүз
unknown-title = Төлөмүңүздү текшерип жатабыз
unknown-happened = { $bill } коду боюнча { $amount } өлчөмүндөгү төлөмүңүз өткөн-өтпөгөнүн азырынча билбейбиз. Муну банктан тактап жатабыз жана жыйынтыгын ушул дарекке жазабыз.
unknown-money = Эгер төлөм өтпөгөн болсо, картаңыздан акча алынбайт, картада бөгөттөлгөн сумма болсо бошотулат: адатта бир нече күндүн ичинде, эң кечи { $days } күндүн ичинде. Мөөнөтү банкыңызга жараша болот.

failed-subject = { $amount } өлчөмүндөгү төлөмүңүз өткөн жок: акча алынган жок
failed-title = Акча алынган жок
failed-happened = { $bill } коду боюнча { $amount } өлчөмүндөгү төлөмүңүз өткөн жок. Картаңыздан акча алынган жок.
declined-happened = { $bill } коду боюнча { $amount } өлчөмүндөгү төлөмүңүз четке кагылды. Картаңыздан акча алынган жок.
failed-money = Эгер бул сумма картаңызда бөгөттөлүп турса, ал бошотулат: адатта бир нече күндүн ичинде, эң кечи { $days } күндүн ичинде. Мөөнөтү банкыңызга жараша болот.

reversed-subject = { $amount } өлчөмүндөгү төлөмүңүз жокко чыгарылды: акчаңыз кайтарылат
reversed-title = Акчаңыз кайтарылат
reversed-happened = { $bill } коду боюнча { $amount } өлчөмүндөгү төлөмүңүз жокко чыгарылды. Картаңызда бөгөттөлгөн же андан алынган акча сизге кайтарылат.
reversed-money = Акча адатта бир нече күндүн ичинде, эң кечи { $days } күндүн ичинде кайтарылат. Мөөнөтү банкыңызга жараша болот.

advice-wait = Сураныч, бизден жооп алмайынча кайра төлөбөңүз.
advice-again = Кайра төлөсөңүз болот.
advice-held = Бул код боюнча азыр башка төлөм жүрүп жатат. Сураныч, анын жыйынтыгын күтүңүз, кайра төлөбөңүз.
advice-paid = Бул код боюнча акы мурда эле төлөнгөн. Кайра төлөөнүн кереги жок.
advice-closed = Бул код боюнча эми төлөөгө болбойт: ал жокко чыгарылган же мөөнөтү өткөн. Жаңы код алуу үчүн аны берген мекемеге кайрылыңыз.

link-status = Төлөмүңүздү сайттан көрүү
link-again = Кайра төлөө
